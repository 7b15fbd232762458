"""Run the CUDA kernels thread by thread on a processor."""
import ctypes
from collections import Counter

import encode_twin
import pytest
import torch
from emulated_kernels import Device, compile_library
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from operator_cases import (
    FORMULA,
    LAYOUTS,
    TWIN,
    TYPES,
    assert_agree,
    draw,
    formula,
)

DEVICES = {
    'H100': Device(132, 232448, 90),
    'two clusters': Device(16, 232448, 90),
    'code for 8.0 on an H100': Device(132, 232448, 80),
    'A100': Device(108, 166912, 80),
    'small memory': Device(3, 101376, 86),
}


def by_twin(x, codewords, scale, grad):
    return [encode_twin.forward(x, codewords, scale),
            *encode_twin.backward(grad, x, codewords, scale)]


def by_kernels(kernels, x, codewords, scale, grad, device=Device(), seed=0):
    return [*kernels(x, codewords, scale, None, device, seed),
            *kernels(x, codewords, scale, grad, device, seed)]


# From 4 channels on: with fewer the logits are so large that their rounding alone may
# exceed the tolerance. EDGES has one channel.
@settings(max_examples=60)
@given(
    st.integers(1, 3), st.integers(4, 160), st.integers(1, 100),
    st.integers(1, 70), st.sampled_from(TYPES), st.sampled_from(list(LAYOUTS)),
    st.sampled_from(list(DEVICES)), st.integers(0, 2**16))
def test_encode_kernels_match_formula_and_twin(
        kernels, batch, channels, features, codes, dtype, layout, device, seed):
    x, *rest = draw(batch, channels, features, codes, dtype, seed)
    x = LAYOUTS[layout](x)
    inputs, device = (x, *rest), DEVICES[device]
    assume(kernels.plan(x, rest[0], True, device))  # there is room
    got = by_kernels(kernels, *inputs, device, seed)
    assert_agree(got, formula(*inputs), FORMULA[dtype], inputs)
    assert_agree(got, by_twin(*inputs), TWIN[dtype], inputs)


EDGES = {
    'one channel': (2, 1, 70, 5, 'H100'),
    'one feature': (2, 40, 1, 5, 'H100'),
    'one of each': (1, 1, 1, 1, 'H100'),
    'a cluster of eight blocks': (1, 512, 600, 32, 'two clusters'),
    'codewords in groups': (1, 256, 70, 256, 'H100'),
    'channels in chunks': (2, 700, 70, 33, 'small memory'),
    'all of a small device': (2, 512, 130, 32, 'small memory'),
    'more images than threads': (515, 3, 2, 2, 'H100'),
}


@pytest.mark.parametrize('dtype', TYPES)
@pytest.mark.parametrize('layout', ['contiguous', 'channels_last'])
@pytest.mark.parametrize('case', EDGES)
def test_encode_kernels_match_formula_and_twin_at_edges(kernels, case, layout, dtype):
    *sizes, device = EDGES[case]
    x, *rest = draw(*sizes, dtype)
    inputs, device = (LAYOUTS[layout](x), *rest), DEVICES[device]
    got = by_kernels(kernels, *inputs, device)
    assert_agree(got, formula(*inputs), FORMULA[dtype], inputs)
    assert_agree(got, by_twin(*inputs), TWIN[dtype], inputs)


@pytest.mark.parametrize('dtype', TYPES)
def test_encode_kernels_repeat_bits_in_any_order(kernels, dtype):
    inputs = draw(2, 300, 140, 32, dtype)
    device = DEVICES['two clusters']
    first = by_kernels(kernels, *inputs, device, seed=0)
    for seed in range(1, 6):
        for mine, theirs in zip(by_kernels(kernels, *inputs, device, seed), first):
            assert torch.equal(mine, theirs)


@pytest.mark.parametrize('dtype', TYPES)
def test_encode_kernels_keep_precision_at_common_offset(kernels, dtype):
    inputs = draw(1, 200, 90, 32, dtype, offset=50)
    got = by_kernels(kernels, *inputs)
    width = dict(FORMULA[dtype], codewords=FORMULA[dtype]['codewords'] * 2)
    assert_agree(got, formula(*inputs), width, inputs)


@pytest.mark.parametrize('dtype', TYPES)
def test_encode_kernels_keep_nan_in_its_image(kernels, dtype):
    x, codewords, scale, grad = draw(2, 40, 50, 5, dtype)
    x[0, 3, 7] = float('nan')
    out, grad_x, *_ = by_kernels(kernels, x, codewords, scale, grad)
    assert out[0].isnan().all() and not out[1].isnan().any()
    assert grad_x[0, :, 7].isnan().all()
    assert not grad_x[0, :, 8].isnan().any() and not grad_x[1].isnan().any()


def test_plan_of_encnet_on_h100_needs_little_memory(kernels):
    x = torch.empty(16, 512, 64 * 64, dtype=torch.bfloat16)
    codewords = torch.empty(32, 512)
    for backward in (False, True):
        plan = kernels.plan(x, codewords, backward)
        assert (plan.block_channels, plan.blocks, plan.cluster_size) == (512, 120, 8)
        assert plan.stages == 2  # the next tile is under way
        assert plan.workspace_bytes < 0.05 * x.nbytes


@pytest.mark.parametrize('architecture, cluster_size', [(80, 1), (90, 8)])
def test_plan_has_clusters_only_for_architecture_90(
        kernels, architecture, cluster_size):
    device = Device(architecture=architecture)
    x, codewords = torch.empty(16, 512, 64 * 64), torch.empty(32, 512)
    for dtype in TYPES:
        for backward in (False, True):
            plan = kernels.plan(x.to(dtype), codewords, backward, device)
            assert plan.cluster_size == cluster_size


@pytest.mark.parametrize('shape, supported', [
    ((65534, 1, 1, 1), True), ((65535, 1, 1, 1), False),  # images
    ((1, 1, 1, 256), True), ((1, 1, 1, 257), False),  # codewords
    ((1, 2**25 - 1, 1, 1), True), ((1, 2**25, 1, 1), False),  # channels
    ((0, 1, 1, 1), False), ((1, 1, 0, 1), False), ((1, 1, 1, 0), False),
])
def test_plan_rejects_sizes_out_of_range(kernels, shape, supported):
    batch, channels, features, codes = shape
    x, codewords = torch.empty(1).expand(shape[:3]), torch.empty(codes, channels)
    assert bool(kernels.plan(x, codewords, False)) == supported


@pytest.mark.parametrize('device', DEVICES)
def test_plan_keeps_every_block_busy(kernels, device):
    device = DEVICES[device]
    for batch in range(1, 140):
        x = torch.empty(batch, 512, 64 * 64, dtype=torch.bfloat16)
        plan = kernels.plan(x, torch.empty(32, 512), False, device)
        tiles = batch * 128
        clusters = plan.blocks // plan.cluster_size
        # The blocks of a cluster divide the tiles of each of its segments.
        most = max(sum(-(-segment // plan.cluster_size) for segment in own)
                   for own in segments_by_cluster(batch, 128, clusters))
        least = -(-tiles // device.multiprocessors)
        assert least <= most <= least + least // 8, batch


def segments_by_cluster(batch, tiles, clusters):
    """Yield for each cluster how many tiles it has of each of its images."""
    for i in range(clusters):
        own = range(batch * tiles * i // clusters, batch * tiles * (i + 1) // clusters)
        yield Counter(tile // tiles for tile in own).values()


@pytest.mark.parametrize('shape', [(1, 4096, 64, 256), (4, 2048, 4096, 64),
                                   (1, 1, 1, 1), (60000, 3, 5, 7)])
@pytest.mark.parametrize('device', DEVICES)
def test_plan_fits_the_device(kernels, shape, device):
    batch, channels, features, codes = shape
    x, codewords = torch.empty(batch, channels, features), torch.empty(codes, channels)
    for dtype in TYPES:
        for backward in (False, True):
            plan = kernels.plan(x.to(dtype), codewords, backward, DEVICES[device])
            if plan is None:  # only for many codewords
                assert codes > 64
                continue
            assert plan.shared_bytes <= DEVICES[device].shared_bytes
            assert plan.blocks % plan.cluster_size == 0
            assert 1 <= plan.blocks <= DEVICES[device].multiprocessors


FAULTY = '''
#include "common/device.cuh"
using namespace encstdc;
static void kernel(float* out) {
  float* shared = reinterpret_cast<float*>(shared_memory());
  shared[thread()] = float(thread());
  if (BARRIER) sync_block();
  out[thread()] = shared[(thread() + 1) % 64];
}
extern "C" void run(float* out, unsigned seed) {
  emulation::order.seed(seed);
  launch(kernel, {1, 1, 64, 1, 256, nullptr}, out);
}
'''


@pytest.mark.parametrize('barrier', [True, False])
def test_emulation_finds_missing_barrier(tmp_path, barrier):
    source = tmp_path / 'faulty.cpp'
    source.write_text(FAULTY)
    library = ctypes.CDLL(str(compile_library(
        tmp_path / 'faulty.so', [source], f'-DBARRIER={int(barrier)}')))
    expected = (torch.arange(64) + 1.0) % 64
    right = []
    for seed in range(4):
        out = torch.empty(64)
        library.run(ctypes.c_void_p(out.data_ptr()), ctypes.c_uint(seed))
        right.append(torch.equal(out, expected))
    assert all(right) if barrier else not any(right)


