#!/usr/bin/env bash
# Train under Slurm: tools/slurm_train.sh PARTITION JOB_NAME CONFIG [ARGS ...]
# Variables: GPUS in total (default 4), GPUS_PER_NODE (4), CPUS_PER_TASK (5), SRUN_ARGS,
# STOP_SECONDS (120): that long before its time limit, the training saves and stops.
# In a batch job, Slurm then queues the job again, and it resumes.
set -euo pipefail
if [ $# -lt 3 ]; then
    echo "usage: $0 PARTITION JOB_NAME CONFIG [arguments of tools/train.py]" >&2
    exit 2
fi
partition=$1
job=$2
config=$3
shift 3
if ! command -v srun > /dev/null; then
    echo 'error: srun is not on PATH; this script needs a Slurm cluster' >&2
    exit 1
fi
gpus=${GPUS:-4}
per_node=${GPUS_PER_NODE:-4}
if [ "$gpus" -lt "$per_node" ]; then per_node=$gpus; fi
if [ "${SLURM_RESTART_COUNT:-0}" -gt 0 ]; then set -- "$@" --resume; fi
trap : USR1  # the signal is for the training; this script waits for it
# SRUN_ARGS is a list of words, so it stays unquoted.
code=0
srun -p "$partition" --job-name="$job" --gres=gpu:"$per_node" \
    --ntasks="$gpus" --ntasks-per-node="$per_node" \
    --cpus-per-task="${CPUS_PER_TASK:-5}" --kill-on-bad-exit=1 \
    --signal=USR1@"${STOP_SECONDS:-120}" ${SRUN_ARGS:-} \
    "${PYTHON:-python}" -u "$(dirname "$0")/train.py" "$config" \
    --launcher slurm "$@" || code=$?
if [ "$code" -eq 138 ] && [ -n "${SLURM_JOB_ID:-}" ]; then  # 128 + SIGUSR1
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
