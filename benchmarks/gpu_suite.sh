#!/usr/bin/env bash
# Everything that needs a GPU, in one command: bash benchmarks/gpu_suite.sh
# Builds the kernels, runs the tests marked gpu, watches the kernels with
# compute-sanitizer, looks whether losses make the GPU wait, measures the operator,
# the loss path and a step of training beside MMSegmentation's, and trains on CamVid.
# STEPS (default: build test sanitize sync op losses train-step train) chooses;
# MINUTES of training for each network (default 3); PYTHON (default python). CamVid
# must lie at data/camvid for train. Results go to benchmarks/results.
set -uo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python}
minutes=${MINUTES:-3}
steps=${STEPS:-build test sanitize sync op losses train-step train}
failed=0
step() {
    echo "== $*"
    "$@" || { echo "FAILED: $*"; failed=1; }
}
wanted() { [[ " $steps " == *" $1 "* ]]; }

"$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' || {
    echo 'no CUDA device: this suite needs one' >&2
    exit 2
}
if wanted build; then
    step "$python" setup.py build_ext --inplace
    step "$python" -c 'from mmseg_encstdc.ops import backend
assert backend.load_extension(), "the kernels are not built"'
fi
if wanted test; then
    step "$python" -m pytest -m gpu -rs
fi
if wanted sanitize; then
    if command -v compute-sanitizer >/dev/null; then
        # Without the caching allocator an overrun does not land in a neighbour.
        for tool in memcheck racecheck synccheck; do
            step env PYTORCH_NO_CUDA_MEMORY_CACHING=1 compute-sanitizer \
                --tool "$tool" --report-api-errors no --error-exitcode 1 \
                "$python" tests/ops/sanitize.py
        done
    else
        echo 'skipped: compute-sanitizer is not there'
    fi
fi
if wanted sync; then
    step "$python" -m pytest -m gpu -rs tests/losses/test_no_sync.py
fi
if wanted op; then
    step "$python" tools/benchmark.py op
fi
if wanted losses; then
    step "$python" tools/benchmark.py losses
fi
if wanted train-step; then
    for amp in '' --amp; do
        step "$python" tools/benchmark.py train configs/encnet_r101_ade.py \
            --shape 4x512x512 $amp
        step "$python" tools/benchmark.py train configs/stdc1_seg75_cityscapes.py \
            --shape 12x512x1024 $amp
    done
fi
if wanted train; then
    common=(--minutes "$minutes" --amp --crop 360 480 --workers 8)
    step "$python" benchmarks/camvid.py configs/stdc1_camvid.py "${common[@]}" --batch 24
    step "$python" benchmarks/camvid.py configs/stdc2_camvid.py "${common[@]}" --batch 24
    step "$python" benchmarks/camvid.py configs/encnet_r50_camvid.py "${common[@]}" --batch 16
fi
exit $failed
