#!/usr/bin/env bash
# Everything that needs a GPU, in one command: bash benchmarks/gpu_suite.sh
# The first ten minutes say which backends (torch, triton, cuda) are right and which is
# the fastest; the rest takes hours. In this order:
#   build       the CUDA extension; where that fails the rest goes on without it
#   table       which backend computes each operator, and why
#   test        every backend of every operator, and a training step with each
#   quick       time and memory of the Encoding operator at two shapes
#   losses      the same of the loss path
#   sanitize    the kernels of every backend, watched by compute-sanitizer
#   sync        losses never make the GPU wait; the benchmarks' own tests on a GPU
#   train-step  a step of training of MMSegmentation's configs, with and without us
#   op          the Encoding operator at all shapes
#   train       EncNet and STDC on CamVid, which must lie at data/camvid
# STEPS chooses; MINUTES for the training (default 10); PYTHON (default
# python). Results go to benchmarks/results.
set -uo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python}
minutes=${MINUTES:-10}
steps=${STEPS:-build table test quick losses sanitize sync train-step op train}
failed=0
step() {
    echo "== $* ($(date +%T))"
    "$@" || { echo "FAILED: $*"; failed=1; }
}
wanted() { [[ " $steps " == *" $1 "* ]]; }

"$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' || {
    echo 'no CUDA device: this suite needs one' >&2
    exit 2
}
if [ -n "${MMSEG_ENCSTDC_BACKEND:-}" ]; then
    echo 'MMSEG_ENCSTDC_BACKEND is ignored: every backend is tested and measured'
    unset MMSEG_ENCSTDC_BACKEND
fi
if wanted build; then
    step "$python" setup.py build_ext --inplace
fi
if wanted table; then
    step "$python" -m mmseg_encstdc.ops
fi
if wanted test; then
    step "$python" benchmarks/gpu_tests.py gpu_tests tests/ops tests/test_gpu.py
fi
if wanted quick; then
    step "$python" tools/benchmark.py op --no-plot \
        --shapes 2x512x64x64x32 16x512x64x64x32
fi
if wanted losses; then
    step "$python" tools/benchmark.py losses
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
    step "$python" benchmarks/gpu_tests.py gpu_tests_sync tests/losses tests/benchmarks
fi
if wanted train-step; then
    for amp in '' --amp; do
        step "$python" tools/benchmark.py train $amp \
            mmseg::encnet/encnet_r101-d8_4xb4-80k_ade20k-512x512.py \
            mmseg::stdc/stdc1_4xb12-80k_cityscapes-512x1024.py
    done
fi
if wanted op; then
    step "$python" tools/benchmark.py op
fi
if wanted train; then
    step "$python" benchmarks/camvid.py gpu --amp --tta --minutes "$minutes"
fi
exit $failed
