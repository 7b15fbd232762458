#!/usr/bin/env bash
# Train with several processes: tools/dist_train.sh CONFIG PROCESSES [ARGS ...]
# On several nodes set NNODES, NODE_RANK and MASTER_ADDR; PORT if 29500 is taken.
set -euo pipefail
if [ $# -lt 2 ]; then
    echo "usage: $0 CONFIG PROCESSES [arguments of tools/train.py]" >&2
    exit 2
fi
config=$1
processes=$2
shift 2
if [ ! -f "$config" ]; then echo "error: $config does not exist" >&2; exit 1; fi
if [[ ! $processes =~ ^[1-9][0-9]*$ ]]; then
    echo "error: PROCESSES must be a number from 1 up, got $processes" >&2
    exit 1
fi
exec "${PYTHON:-python}" "$(dirname "$0")/dist_run.py" "$processes" \
    "$(dirname "$0")/train.py" "$config" --launcher pytorch "$@"
