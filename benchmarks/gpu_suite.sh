#!/usr/bin/env bash
# Everything that needs a GPU, in one command: bash benchmarks/gpu_suite.sh
# MINUTES of training for each network (default 3), PYTHON (default python).
# CamVid must lie at data/camvid. Results go to benchmarks/results.
set -uo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python}
minutes=${MINUTES:-3}
failed=0
step() {
    echo "== $*"
    "$@" || { echo "FAILED: $*"; failed=1; }
}
"$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' || {
    echo 'no CUDA device: this suite needs one' >&2
    exit 2
}
step "$python" -m pytest -m gpu
common=(--minutes "$minutes" --amp --crop 360 480 --workers 8)
step "$python" benchmarks/camvid.py configs/stdc1_camvid.py "${common[@]}" --batch 24
step "$python" benchmarks/camvid.py configs/stdc2_camvid.py "${common[@]}" --batch 24
step "$python" benchmarks/camvid.py configs/encnet_r50_camvid.py "${common[@]}" --batch 16
exit $failed
