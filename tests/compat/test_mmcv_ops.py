"""Compare our mmcv.ops with formulas, and with the compiled one if there is one."""
import importlib
import importlib.util
import sys
from types import SimpleNamespace

import mmcv.ops
import numpy as np
import pytest
import torch
from plugin_scripts import full, lite, run_script

import mmseg_encstdc
from mmseg_encstdc import compat
from mmseg_encstdc.compat import mmcv_ops


@lite
def test_supply_mmcv_ops_in_any_import_order(root, tmp_path):
    printed = run_script(
        root, tmp_path, """
        import importlib
        import mmseg.registry  # as in a config whose imports come first
        import mmseg_encstdc
        from mmseg.registry import MODELS
        import mmcv
        import mmcv.ops
        from mmcv.ops import point_sample, sigmoid_focal_loss
        from mmseg_encstdc.compat import mmcv_ops
        print(mmcv.ops is mmcv.__dict__['ops'])
        print(point_sample is mmcv_ops.point_sample)
        print(sigmoid_focal_loss is mmcv_ops.sigmoid_focal_loss)

        ops = mmcv.ops
        importlib.reload(mmseg_encstdc)
        print(mmcv.ops is ops)
        print(MODELS.get('EncHead') is mmseg_encstdc.heads.EncHead)
        """)
    assert printed == ['True'] * 5


@lite
def test_supply_mmcv_ops_in_spawned_worker(root, tmp_path):
    printed = run_script(
        root, tmp_path, """
        import multiprocessing
        import mmseg_encstdc

        def look_up(queue):
            from mmcv.ops import point_sample
            from mmseg.registry import MODELS
            queue.put((point_sample.__module__, MODELS.get('EncHead').__module__))

        if __name__ == '__main__':
            context = multiprocessing.get_context('spawn')
            queue = context.Queue()
            worker = context.Process(target=look_up, args=(queue, ))
            worker.start()
            print(*queue.get(timeout=60))
            worker.join()
        """)
    assert printed == ['mmseg_encstdc.compat.mmcv_ops',
                       'mmseg_encstdc.heads.enc_head']


@lite
def test_mmcv_ops_names_full_mmcv_for_other_operator():
    with pytest.raises(ModuleNotFoundError, match='mmcv.ops.nms .* full mmcv'):
        _ = mmcv.ops.nms
    with pytest.raises(ModuleNotFoundError, match='full mmcv'):
        from mmcv.ops import CrissCrossAttention  # noqa: F401
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module('mmcv.ops.nms')


@lite
def test_mmcv_ops_raises_attribute_error_for_dunder():
    with pytest.raises(AttributeError, match='__wrapped__'):
        _ = mmcv.ops.__wrapped__
    assert not hasattr(mmcv.ops, '__file__')


def test_prepare_and_register_are_idempotent():
    from mmseg.registry import MODELS
    ops, head = sys.modules['mmcv.ops'], MODELS.get('EncHead')
    compat.prepare()
    mmseg_encstdc.register()
    assert sys.modules['mmcv.ops'] is ops
    assert MODELS.get('EncHead') is head


def test_supply_mmcv_ops_keeps_compiled_operators(monkeypatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, 'find_spec', lambda name, package=None:
        object() if name == 'mmcv._ext' else find_spec(name, package))
    monkeypatch.delitem(sys.modules, 'mmcv.ops')
    mmcv_ops.supply_mmcv_ops()
    assert 'mmcv.ops' not in sys.modules


def test_supply_mmcv_ops_keeps_imported_operators(monkeypatch):
    full = SimpleNamespace()
    monkeypatch.setitem(sys.modules, 'mmcv.ops', full)
    mmcv_ops.supply_mmcv_ops()
    assert sys.modules['mmcv.ops'] is full


def bilinear(feature, x, y):
    """Return the value of a map (H, W) at pixel coordinates, 0 outside."""
    height, width = feature.shape
    left, top = int(np.floor(x)), int(np.floor(y))
    value = 0.
    for row in (top, top + 1):
        for column in (left, left + 1):
            if 0 <= row < height and 0 <= column < width:
                weight = (1 - abs(x - column)) * (1 - abs(y - row))
                value += weight * float(feature[row, column])
    return value


@pytest.mark.parametrize('align_corners', [False, True])
def test_point_sample_equals_bilinear_interpolation(align_corners):
    feature, points = torch.randn(2, 3, 4, 5).double(), torch.rand(2, 7, 2).double()
    sampled = mmcv_ops.point_sample(feature, points, align_corners)
    assert sampled.shape == (2, 3, 7)
    for n in range(2):
        for p, (x, y) in enumerate(points[n].tolist()):
            if align_corners:  # 0 and 1 are the centres of the outer pixels
                column, row = x * 4, y * 3
            else:  # 0 and 1 are the outer edges of the outer pixels
                column, row = x * 5 - .5, y * 4 - .5
            for c in range(3):
                expected = bilinear(feature[n, c], column, row)
                assert sampled[n, c, p].item() == pytest.approx(expected, abs=1e-12)


def test_point_sample_takes_a_grid_of_points():
    feature, points = torch.randn(2, 3, 4, 5), torch.rand(2, 6, 2, 2)
    grid = mmcv_ops.point_sample(feature, points)
    row = mmcv_ops.point_sample(feature, points.reshape(2, 12, 2))
    assert grid.shape == (2, 3, 6, 2)
    assert torch.equal(grid.reshape(2, 3, 12), row)


@full
@pytest.mark.parametrize('align_corners', [False, True])
@pytest.mark.parametrize('shape', [(2, 7, 2), (2, 6, 3, 2)])
def test_point_sample_equals_mmcv(shape, align_corners):
    feature, points = torch.randn(2, 3, 4, 5), torch.rand(shape)
    assert torch.equal(
        mmcv_ops.point_sample(feature, points, align_corners),
        mmcv.ops.point_sample(feature, points, align_corners))


@full
def test_compiled_mmcv_operators_run():
    boxes = torch.tensor([[0., 0., 4., 4.], [0., 0., 4., 5.], [6., 6., 9., 9.]])
    kept = mmcv.ops.nms(boxes, torch.tensor([.9, .8, .7]), 0.5)[1]
    assert kept.tolist() == [0, 2]


def focal_loss_by_element(logits, target, gamma, alpha, weight):
    """Compute equation 5 of arXiv 1708.02002, element by element."""
    loss = torch.zeros_like(logits)
    for n in range(logits.size(0)):
        for c in range(logits.size(1)):
            p = 1 / (1 + np.exp(-logits[n, c].item()))
            if target[n] == c:
                value = -alpha * (1 - p)**gamma * np.log(p)
            else:
                value = -(1 - alpha) * p**gamma * np.log(1 - p)
            none = target[n] == logits.size(1)
            if weight is not None and not none:
                value *= weight[target[n]].item()
            loss[n, c] = value
    return loss


@pytest.mark.parametrize('weight', [None, [0.5, 2., 3.]])
def test_sigmoid_focal_loss_equals_formula(weight):
    logits = torch.randn(6, 3).double() * 3
    target = torch.tensor([0, 1, 2, 3, 1, 0])  # 3 is "none of them"
    weight = None if weight is None else torch.tensor(weight).double()
    expected = focal_loss_by_element(logits, target, 1.5, 0.3, weight)
    arguments = (logits, target, 1.5, 0.3, weight)

    each = mmcv_ops.sigmoid_focal_loss(*arguments, reduction='none')
    torch.testing.assert_close(each, expected)
    total = mmcv_ops.sigmoid_focal_loss(*arguments, reduction='sum')
    torch.testing.assert_close(total, expected.sum())
    mean = mmcv_ops.sigmoid_focal_loss(*arguments)
    torch.testing.assert_close(mean, expected.sum() / 6)


def test_sigmoid_focal_loss_of_large_logits_is_finite():
    logits = torch.tensor([[1000., -1000.]], requires_grad=True)
    for target in (0, 1):
        loss = mmcv_ops.sigmoid_focal_loss(logits, torch.tensor([target]))
        gradient, = torch.autograd.grad(loss, logits)
        assert loss.isfinite() and gradient.isfinite().all()


def test_sigmoid_focal_loss_of_no_rows_is_zero():
    empty = torch.zeros(0, 3), torch.zeros(0, dtype=torch.long)
    assert mmcv_ops.sigmoid_focal_loss(*empty) == 0


def test_sigmoid_focal_loss_rejects_reduction():
    with pytest.raises(ValueError, match="'none', 'mean' or 'sum', got 'max'"):
        mmcv_ops.sigmoid_focal_loss(
            torch.zeros(1, 1), torch.zeros(1, dtype=torch.long), reduction='max')
