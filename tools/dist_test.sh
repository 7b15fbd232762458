#!/usr/bin/env bash
# Evaluate with several processes:
# tools/dist_test.sh CONFIG CHECKPOINT PROCESSES [ARGS ...]
# On several nodes set NNODES, NODE_RANK and MASTER_ADDR; PORT if 29500 is taken.
set -euo pipefail
if [ $# -lt 3 ]; then
    echo "usage: $0 CONFIG CHECKPOINT PROCESSES [arguments of tools/test.py]" >&2
    exit 2
fi
config=$1
checkpoint=$2
processes=$3
shift 3
for file in "$config" "$checkpoint"; do
    if [ ! -f "$file" ]; then echo "error: $file does not exist" >&2; exit 1; fi
done
if [[ ! $processes =~ ^[1-9][0-9]*$ ]]; then
    echo "error: PROCESSES must be a number from 1 up, got $processes" >&2
    exit 1
fi
exec "${PYTHON:-python}" "$(dirname "$0")/dist_run.py" "$processes" \
    "$(dirname "$0")/test.py" "$config" "$checkpoint" --launcher pytorch "$@"
