"""Compare encode() with encode_reference()."""
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from operator_cases import LAYOUTS as VIEWS
from operator_cases import assert_agree, formula
from operator_cases import draw as draw_columns
from torch.autograd import gradcheck
from torch.utils.checkpoint import checkpoint

from mmseg_encstdc.layers import Encoding
from mmseg_encstdc.ops import encode, encode_composite, encode_reference
from mmseg_encstdc.ops.encode import matmul

# Largest error over the largest value. The expanded square of the distance has a larger
# rounding error than the residual, hence the tolerance of float32.
TOLERANCE = {torch.float64: 1e-11, torch.float32: 1e-4}

sizes = st.integers(1, 7)
shapes = st.tuples(st.integers(1, 3), st.integers(1, 9), sizes, sizes, sizes)
seeds = st.integers(0, 2**16)
thorough = settings(max_examples=30, deadline=None, derandomize=True)


def draw(shape, seed, dtype=torch.float64):
    """Draw features (B, D, H, W), codewords (K, D) and scale (K, )."""
    b, d, h, w, k = shape
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(b, d, h, w, generator=generator, dtype=dtype)
    codewords = torch.randn(k, d, generator=generator, dtype=dtype)
    return x, codewords, -torch.rand(k, generator=generator, dtype=dtype)


def with_gradients(function, *inputs):
    """Return the output, and the gradients of a random weighted sum of it."""
    leaves = [value.detach().clone().requires_grad_() for value in inputs]
    out = function(*leaves)
    probe = torch.randn(
        out.shape, dtype=out.dtype,
        generator=torch.Generator().manual_seed(1))
    return [out, *torch.autograd.grad(out, leaves, probe)]


def assert_close(got, expected, tolerance):
    assert got.shape == expected.shape
    assert got.dtype == expected.dtype
    width = tolerance * max(1, expected.abs().max().item())
    torch.testing.assert_close(got, expected, rtol=0, atol=width)


@thorough
@given(shapes, seeds, st.sampled_from(list(TOLERANCE)))
def test_encode_matches_reference(shape, seed, dtype):
    x, *rest = draw(shape, seed, dtype)
    for features in (x, x.flatten(2)):
        for got, expected in zip(
                with_gradients(encode, features, *rest),
                with_gradients(encode_reference, features, *rest)):
            assert_close(got, expected, TOLERANCE[dtype])


@thorough
@given(shapes, seeds)
def test_encode_reference_equals_formula(shape, seed):
    x, codewords, scale = draw(shape, seed)
    out = encode_reference(x, codewords, scale)
    for image, encoding in zip(x, out):
        expected = torch.zeros_like(codewords)
        for feature in image.flatten(1).t():
            residual = feature - codewords  # (K, D)
            assigned = (scale * residual.pow(2).sum(1)).exp()
            expected += (assigned / assigned.sum()).unsqueeze(1) * residual
        assert_close(encoding, expected, 1e-11)


@thorough
@given(shapes, seeds)
def test_encode_functions_take_the_same_order_of_dimensions(shape, seed):
    x, codewords, scale = draw(shape, seed)
    layer = Encoding(codewords.size(1), codewords.size(0)).double()
    layer.load_state_dict(dict(codewords=codewords, scale=scale))
    expected = encode_reference(x, codewords, scale)
    for function in (encode, encode_composite, encode_reference,
                     lambda x, *_: layer(x).detach()):
        for features in (x, x.flatten(2)):
            assert_close(function(features, codewords, scale), expected, 1e-11)


@pytest.mark.parametrize('function', [
    encode, encode_composite, encode_reference, lambda x, *_: Encoding(3, 4)(x)])
@pytest.mark.parametrize('shape, remedy', [
    ((2, 9, 3), r'\(B, N, D\) give x.transpose\(1, 2\)'),
    ((2, 5, 9, 3), r'\(B, H, W, D\) give x.movedim\(3, 1\)')])
def test_encode_names_both_orders_for_channels_last(function, shape, remedy):
    x, codewords, scale = torch.zeros(shape), torch.zeros(4, 3), torch.zeros(4)
    with pytest.raises(ValueError, match=r'The order is \(B, D, N\) .*' + remedy):
        function(x, codewords, scale)
    right = x.transpose(1, 2) if x.dim() == 3 else x.movedim(3, 1)
    assert function(right, codewords, scale).shape == (2, 4, 3)


LAYOUTS = {
    'channels_last': lambda x: x.contiguous(
        memory_format=torch.channels_last),
    'sliced columns': lambda x: x.repeat_interleave(2, dim=3)[..., ::2],
    'sliced channels': lambda x: torch.cat([x, x], 1)[:, :x.size(1)],
    'transposed': lambda x: x.transpose(2, 3).contiguous().transpose(2, 3),
    'broadcast over the batch': lambda x: x[:1].expand_as(x),
}


@pytest.mark.parametrize('layout', LAYOUTS)
@settings(thorough, max_examples=15)
@given(shapes, seeds)
def test_encode_result_is_independent_of_layout(
        layout, shape, seed):
    x, codewords, scale = draw(shape, seed)
    if layout.startswith('broadcast'):
        x = x[:1].repeat(x.size(0), 1, 1, 1)
    laid_out = LAYOUTS[layout]
    assert torch.equal(laid_out(x), x)
    for got, expected in zip(
            with_gradients(
                lambda x, *rest: encode(laid_out(x), *rest),
                x, codewords, scale),
            with_gradients(
                lambda x, *rest: encode_reference(laid_out(x), *rest),
                x, codewords, scale)):
        assert_close(got, expected, TOLERANCE[torch.float64])


@pytest.mark.parametrize('function', [encode, encode_reference])
@pytest.mark.parametrize('kind', ['map', 'columns', 'channels_last', 'sliced'])
def test_encode_passes_gradcheck(function, kind):
    x, codewords, scale = draw((2, 3, 4, 5, 4), seed=0)
    x = {
        'map': x,
        'columns': x.flatten(2),
        'channels_last': x.contiguous(memory_format=torch.channels_last),
        'sliced': x[:, :, ::2, 1:4],
    }[kind]
    inputs = [value.requires_grad_() for value in (x, codewords, scale)]
    assert gradcheck(function, inputs)


def test_encode_ignores_autocast():
    x, codewords, scale = draw((2, 3, 4, 5, 6), seed=0, dtype=torch.float32)
    plain = encode(x, codewords, scale)
    composite = encode_composite(x, codewords, scale)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        assert torch.equal(encode(x, codewords, scale), plain)
        assert torch.equal(encode_composite(x, codewords, scale), composite)


WRONG_SHAPES = {
    'codewords of one dimension': (
        (2, 3, 9), (3, ), (4, ), r'codewords must be .*\(3,\)'),
    'codewords of three dimensions': (
        (2, 3, 9), (1, 4, 3), (4, ), r'codewords must be .*\(1, 4, 3\)'),
    'no codewords': (
        (2, 3, 9), (0, 3), (0, ), r'codewords must be .*\(0, 3\)'),
    'a scale too short': (
        (2, 3, 9), (4, 3), (3, ), r'scale must be \(4,\).*\(3,\)'),
    'a scale of two dimensions': (
        (2, 3, 9), (4, 3), (4, 1), r'scale must be \(4,\).*\(4, 1\)'),
    'features of two dimensions': (
        (9, 3), (4, 3), (4, ), r'x must be .*\(9, 3\)'),
    'features of five dimensions': (
        (1, 3, 2, 2, 2), (4, 3), (4, ), r'x must be .*\(1, 3, 2, 2, 2\)'),
    'columns of other channels': (
        (2, 5, 9), (4, 3), (4, ),
        r'x \(2, 5, 9\) has 5 channels .*codewords \(4, 3\) have 3'),
    'a map of other channels': (
        (2, 5, 3, 3), (4, 3), (4, ),
        r'x \(2, 5, 3, 3\) has 5 channels .*codewords \(4, 3\) have 3'),
}


@pytest.mark.parametrize('function', [encode, encode_composite, encode_reference])
@pytest.mark.parametrize('case', WRONG_SHAPES)
def test_encode_rejects_wrong_shape(case, function):
    x, codewords, scale, message = WRONG_SHAPES[case]
    with pytest.raises(ValueError, match=message):
        function(torch.zeros(x), torch.zeros(codewords), torch.zeros(scale))


@pytest.mark.parametrize('function', [encode, encode_reference])
@pytest.mark.parametrize('dtype', [torch.int64, torch.uint8, torch.bool])
def test_encode_rejects_integer_features(function, dtype):
    x = torch.zeros(2, 3, 9, dtype=dtype)
    with pytest.raises(TypeError, match=f'x must be .*{dtype}'):
        function(x, torch.zeros(4, 3), torch.zeros(4))


# --- The operator in opcheck, compile and export ------------------------------


def arguments(dtype=torch.float32, batch=2):
    x, codewords, scale = draw((batch, 6, 5, 7, 3), seed=3, dtype=torch.float32)
    return [x.flatten(2).to(dtype).requires_grad_(),
            codewords.requires_grad_(), scale.requires_grad_()]


RANKS = {
    'rank 3': lambda x: x,
    'rank 4': lambda x: x.unflatten(2, (5, 7)),
    'channels_last': lambda x: x.unflatten(2, (5, 7)).contiguous(
        memory_format=torch.channels_last),
    'rows and columns swapped': lambda x: x.unflatten(2, (5, 7)).transpose(2, 3),
    'crop': lambda x: x.unflatten(2, (5, 7))[..., 1:4],
}


@pytest.mark.parametrize('name', ['encode', 'encode_with_distances'])
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
@pytest.mark.parametrize('rank', RANKS)
def test_encode_passes_opcheck(name, dtype, rank):
    x, codewords, scale = arguments(dtype)
    x = RANKS[rank](x.detach()).requires_grad_()
    torch.library.opcheck(
        getattr(torch.ops.mmseg_encstdc, name).default, (x, codewords, scale))


@pytest.mark.parametrize('kept', [True, False])
@pytest.mark.parametrize('rank', RANKS)
def test_encode_backward_passes_opcheck(rank, kept):
    x, codewords, scale = (value.detach() for value in arguments())
    x = RANKS[rank](x)
    encodings, distances = torch.ops.mmseg_encstdc.encode_with_distances(
        x, codewords, scale)
    torch.library.opcheck(
        torch.ops.mmseg_encstdc.encode_backward.default,
        (torch.randn_like(encodings), x, codewords, scale,
         distances if kept else None))


@thorough
@given(shapes, seeds, st.integers(1, 20), st.integers(1, 20))
def test_encode_is_independent_of_block_size(shape, seed, length, least):
    inputs = draw(shape, seed)
    expected_all = with_gradients(encode, *inputs)
    batch, channels = inputs[0].shape[:2]
    kept = matmul.BLOCK_BYTES, matmul.MIN_FEATURES
    matmul.BLOCK_BYTES, matmul.MIN_FEATURES = length * 8 * batch * channels, least
    try:
        for got, expected in zip(with_gradients(encode, *inputs), expected_all):
            assert_close(got, expected, 1e-11)
    finally:
        matmul.BLOCK_BYTES, matmul.MIN_FEATURES = kept


@pytest.mark.parametrize('dtype, tolerance', [
    (torch.float32, 1e-4), (torch.bfloat16, 1e-2), (torch.float16, 2e-3)])
def test_encode_gradient_has_type_of_x(dtype, tolerance):
    x, codewords, scale = draw((2, 8, 6, 9, 4), seed=5, dtype=torch.float32)
    x = x.to(dtype)
    got = with_gradients(encode, x, codewords, scale)
    expected = with_gradients(
        encode_reference, x.float(), codewords, scale)
    assert (got[0].dtype, got[1].dtype) == (torch.float32, dtype)
    assert_close(got[0], expected[0], 1e-4)
    for mine, theirs in zip(got, expected):
        assert_close(mine.float(), theirs, tolerance)


def test_encode_keeps_precision_at_common_offset():
    x, codewords, scale = draw((2, 64, 12, 12, 16), seed=2)
    moved = encode((x + 50).float(), (codewords + 50).float(), scale.float())
    expected = encode_reference(
        (x + 50).float().double(), (codewords + 50).float().double(),
        scale.float().double())
    assert (moved - expected).abs().max() < 1e-3


def test_encode_is_one_operator_in_compile_and_export():
    x, codewords, scale = (value.detach() for value in arguments())
    expected = encode(x, codewords, scale)

    class Layer(torch.nn.Module):

        def forward(self, x, codewords, scale):
            return encode(x, codewords, scale)

    inputs = (x, codewords, scale)
    program = torch.export.export(Layer(), inputs)
    names = [str(node.target) for node in program.graph.nodes]
    assert 'mmseg_encstdc.encode.default' in names
    torch.testing.assert_close(program.module()(*inputs), expected)
    compiled = torch.compile(Layer(), fullgraph=True, backend='aot_eager')
    torch.testing.assert_close(compiled(*inputs), expected)


def test_encode_keeps_distances_without_gradient():
    x, codewords, scale = arguments()
    encodings, distances = torch.ops.mmseg_encstdc.encode_with_distances(
        x, codewords, scale)
    assert encodings.requires_grad and not distances.requires_grad
    residuals = x.unsqueeze(1) - codewords.unsqueeze(2)  # (B, K, D, N)
    assert_close(distances, residuals.square().sum(2), 1e-5)


# The torch backend sums in the type of the codewords. Only the gradient of x is rounded
# to the type of x.
PRODUCTS = {
    torch.float64: dict(encodings=1e-11, grad_x=1e-11, codewords=1e-11,
                        scale=1e-11),
    torch.float32: dict(encodings=5e-6, grad_x=1e-5, codewords=5e-6, scale=1e-5),
    torch.float16: dict(encodings=5e-6, grad_x=1e-3, codewords=5e-6, scale=1e-5),
    torch.bfloat16: dict(encodings=5e-6, grad_x=8e-3, codewords=5e-6, scale=1e-5),
}


@pytest.mark.parametrize('keep', [True, False])
@settings(max_examples=60)
@given(
    st.integers(1, 3), st.integers(1, 160), st.integers(1, 300),
    st.integers(1, 256), st.sampled_from(list(PRODUCTS)),
    st.sampled_from(list(VIEWS)), seeds)
def test_encode_equals_formula_for_any_type_and_layout(
        keep, batch, channels, features, codes, dtype, layout, seed):
    x, *rest = draw_columns(batch, channels, features, codes, dtype, seed)
    if dtype == torch.float64:
        rest = [value.double() for value in rest]
    codewords, scale, grad = rest
    x = VIEWS[layout](x)
    encodings, distances = matmul.forward_with_distances(x, codewords, scale)
    if not keep:
        encodings, distances = matmul.forward(x, codewords, scale), None
    got = [encodings, *matmul.backward(grad, x, codewords, scale, distances)]
    inputs = (x, *rest)
    assert got[1].dtype == dtype
    assert_agree(got, formula(*inputs), PRODUCTS[dtype], inputs)


def test_encode_gradients_without_kept_distances_are_equal():
    inputs = arguments()
    for mine, theirs in zip(
            with_gradients(torch.ops.mmseg_encstdc.encode, *inputs),
            with_gradients(encode, *inputs)):
        assert_close(mine, theirs, 1e-5)


def test_encode_keeps_distances_in_training_only(monkeypatch):
    x, codewords, scale = arguments()
    kept, forward = [], matmul.forward_with_distances
    monkeypatch.setattr(matmul, 'forward_with_distances', lambda *words: kept.append(
        True) or forward(*words))
    with torch.no_grad():
        encode(x, codewords, scale)
    encode(x.detach(), codewords.detach(), scale.detach())
    assert not kept
    encode(x, codewords, scale)
    assert kept


def test_encode_forward_mode_equals_reference():
    inputs = draw((2, 5, 4, 6, 3), seed=4)
    tangents = tuple(torch.randn_like(value) for value in inputs)
    got, expected = (torch.func.jvp(function, inputs, tangents)[1]
                     for function in (encode, encode_reference))
    assert_close(got, expected, 1e-11)


def second_derivative(function, x, *rest):
    first, = torch.autograd.grad(
        function(x, *rest).square().sum(), x, create_graph=True)
    return torch.autograd.grad(first.square().sum(), x)[0]


@pytest.mark.parametrize('rank', RANKS)
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_encode_second_derivative_names_encode_composite(rank, dtype):
    x, codewords, scale = arguments(dtype)
    x = RANKS[rank](x.detach()).requires_grad_()
    with pytest.raises(RuntimeError, match='mmseg_encstdc.ops.encode_composite'):
        second_derivative(encode, x, codewords, scale)
    assert second_derivative(encode_composite, x, codewords, scale).isfinite().all()


@pytest.mark.filterwarnings('ignore::torch.jit.TracerWarning')
def test_encode_traced_rejects_wrong_shape():
    x, codewords, scale = draw((2, 5, 4, 6, 3), seed=4, dtype=torch.float32)
    traced = torch.jit.trace(Layer(codewords, scale), (x, ))
    with pytest.raises(Exception, match='has 1 channels in dimension 1 and codewords'):
        traced(x[:, :1])


@pytest.mark.parametrize('name', ['x', 'codewords', 'scale'])
@pytest.mark.parametrize('change, what', [
    (lambda value: value.numpy(), 'must be a tensor, got a ndarray'),
    (lambda value: value.tolist(), 'must be a tensor, got a list'),
    (lambda value: None, 'must be a tensor, got a NoneType'),
    (lambda value: value.to_sparse(), 'must be a dense tensor, got one'),
])
def test_encode_rejects_other_than_dense_tensor(name, change, what):
    inputs = dict(zip(('x', 'codewords', 'scale'), draw((2, 5, 4, 6, 3), seed=4)))
    with pytest.raises(TypeError, match=f'{name} {what}'):
        encode(**{**inputs, name: change(inputs[name])})


def test_block_size_is_limited_for_many_codewords():
    x = torch.empty(1, 3, 10**6)
    _, length = matmul.block_size(x, codes=256, itemsize=4)
    assert length * 256 * 4 <= matmul.BLOCK_BYTES


class Layer(torch.nn.Module):
    """Use the operator as a part of a network, x (B, D, H, W)."""

    def __init__(self, codewords, scale):
        super().__init__()
        self.codewords = torch.nn.Parameter(codewords)
        self.scale = torch.nn.Parameter(scale)

    def forward(self, x):
        return encode(2 * x, self.codewords, self.scale).relu()


@pytest.mark.slow
def test_encode_compiles_with_inductor():
    x, codewords, scale = draw((2, 5, 4, 6, 3), seed=4, dtype=torch.float32)
    layer = Layer(codewords, scale)
    compiled = torch.compile(layer, fullgraph=True)
    for size in (6, 5):  # and again for another size
        expected = with_gradients(layer, x[..., :size])
        for mine, theirs in zip(
                with_gradients(compiled, x[..., :size]), expected):
            assert_close(mine, theirs, 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize('dynamo', [True, False])
def test_encode_exports_to_standard_onnx_operators(tmp_path, dynamo):
    onnx = pytest.importorskip('onnx')
    if dynamo:
        pytest.importorskip('onnxscript')
    x, codewords, scale = draw((2, 5, 4, 6, 3), seed=4, dtype=torch.float32)
    layer, path = Layer(codewords, scale).eval(), str(tmp_path / 'layer.onnx')
    torch.onnx.export(layer, (x, ), path, dynamo=dynamo)
    graph = onnx.load(path).graph
    assert {node.domain for node in graph.node} <= {'', 'ai.onnx'}
    out, = onnx.reference.ReferenceEvaluator(path).run(
        None, {graph.input[0].name: x.numpy()})
    assert_close(torch.from_numpy(out), layer(x).detach(), 1e-5)


def test_encode_gradients_with_checkpointing_are_equal():
    inputs = draw((2, 5, 4, 6, 3), seed=4)
    plain = with_gradients(encode, *inputs)
    again = with_gradients(
        lambda *values: checkpoint(encode, *values, use_reentrant=False),
        *inputs)
    for got, expected in zip(again, plain):
        assert torch.equal(got, expected)


@pytest.mark.parametrize('batch, count', [(0, 12), (2, 0), (0, 0)])
def test_encode_of_empty_input_is_empty_or_zero(batch, count):
    x = torch.zeros(batch, 5, count, requires_grad=True)
    codewords, scale = torch.randn(3, 5), -torch.rand(3)
    out = encode(x, codewords, scale)
    assert out.shape == (batch, 3, 5) and (out == 0).all()
    out.sum().backward()
    assert x.grad.shape == x.shape


def test_encode_keeps_nan_in_its_image():
    x, codewords, scale = draw((2, 5, 4, 6, 3), seed=4)
    x[0, 1, 2, 3] = float('nan')
    out = encode(x, codewords, scale)
    assert out[0].isnan().all() and not out[1].isnan().any()


@pytest.mark.parametrize('change, error, message', [
    (dict(codewords=torch.zeros(3, 5).double()), TypeError,
     'codewords must be torch.float32'),
    (dict(scale=torch.zeros(3, device='meta')), ValueError,
     'scale must be on the device of x, cpu; got meta'),
    (dict(codewords=torch.zeros(257, 5), scale=torch.zeros(257)), ValueError,
     'K <= 256'),
])
def test_encode_rejects_types_devices_and_limits(change, error, message):
    good = dict(x=torch.zeros(2, 5, 4), codewords=torch.zeros(3, 5),
                scale=torch.zeros(3))
    with pytest.raises(error, match=message):
        encode(**{**good, **change})
