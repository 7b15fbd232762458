"""A segmentation network as an ONNX file, compared with PyTorch."""
import importlib.util
import os
import tempfile
import warnings
from pathlib import Path
from typing import Dict, List, Sequence, Tuple, Union

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import compat
from ..engine.configs import datasets_of
from ..errors import InputError

__all__ = [
    'ExportError', 'Graph', 'check_exportable', 'export_onnx', 'left_out'
]

OPSETS = range(13, 21)  # what PyTorch's tracing exporter writes
TOLERANCE = 1e-3  # of the largest logit, or share of the pixels
SMALL = (64, 96)  # what onnx's slow evaluator computes in seconds


class ExportError(RuntimeError):
    """The file that was written is not the network. One line."""


class Graph(nn.Module):
    """What goes into the file.

    Args:
        model (nn.Module): what ``load`` returns.
        labels (bool): give class ids instead of logits. Default: False.
        preprocess (bool): take images as OpenCV reads them, and normalise
            them here. Default: False.

    Raises:
        InputError: when the network is tested in crops, or not a single
            network.
    """

    def __init__(self, model: nn.Module, labels: bool = False,
                 preprocess: bool = False):
        super().__init__()
        check_exportable(model)
        self.model = model
        self.labels = labels
        self.preprocess = preprocess
        self.eval()

    def forward(self, image: Tensor) -> Tensor:
        """Logits (B, C, H, W), or class ids (B, H, W) int64.

        Args:
            image (Tensor): normalised, (B, 3, H, W) float32; or, with
                ``preprocess``, (B, H, W, 3) uint8, BGR.
        """
        logits = self._logits(self._normalise(image))
        if not self.labels:
            return logits
        if logits.size(1) > 1:
            return logits.argmax(1)
        threshold = self.model.decode_head.threshold
        return (logits.sigmoid() > threshold).squeeze(1).long()

    def _normalise(self, image: Tensor) -> Tensor:
        if not self.preprocess:
            return image
        rule = self.model.data_preprocessor
        image = image.permute(0, 3, 1, 2)  # (B, 3, H, W)
        if compat.swaps_channels(rule):
            image = image.flip(1)
        image = image.float()
        if getattr(rule, 'mean', None) is None:
            return image
        return (image - rule.mean) / rule.std

    def _logits(self, image: Tensor) -> Tensor:
        """Auxiliary and detail heads are not called, so they are left out."""
        scale = self.model.test_cfg.get('scale', 1)
        small = image if scale == 1 else F.interpolate(
            image, scale_factor=scale, mode='bilinear', align_corners=True,
            recompute_scale_factor=True)  # the factor, for any size
        meta = dict(img_shape=small.shape[2:])
        logits = self.model.encode_decode(small, [meta])
        return logits if scale == 1 else F.interpolate(
            logits, image.shape[2:], mode='bilinear', align_corners=True)


def check_exportable(model: nn.Module) -> None:
    """Raise InputError unless the network runs once over a whole image."""
    if hasattr(model, 'module') or not hasattr(model, 'encode_decode'):
        raise InputError(
            f'{type(model).__name__} cannot be exported; accepted is a '
            'segmentation network by itself, without test-time augmentation')
    mode = model.test_cfg.get('mode', 'whole')
    if mode != 'whole':
        raise InputError(
            f'model.test_cfg.mode is {mode}, whose crops are no part of a '
            'network; export with --cfg-options model.test_cfg.mode=whole and '
            'cut the crops where the file is run')


def export_onnx(model: nn.Module, path: Union[str, os.PathLike],
                shape: Sequence[int], labels: bool = False,
                preprocess: bool = False, dynamic: bool = False,
                opset: int = 17) -> Dict[str, object]:
    """Write an ONNX file and compare it with PyTorch.

    The file appears at ``path`` once it has passed. Its operators are standard
    ones; its metadata has the names of the classes, one a line.

    Args:
        model (nn.Module): what ``load`` returns, on the CPU.
        path (path): of the file.
        shape (Sequence[int]): (height, width) of the image, pixels.
        labels (bool): class ids (B, H, W), int64, instead of logits
            (B, C, H, W). Default: False.
        preprocess (bool): take (B, H, W, 3) uint8, BGR, instead of normalised
            (B, 3, H, W). Default: False.
        dynamic (bool): let batch, height and width change. Default: False.
        opset (int): of ONNX, 13 to 20. Default: 17.

    Returns:
        dict: ``difference``, the largest of the logits or the share of pixels
        with another label; ``largest``, the largest logit (None for labels);
        ``shapes`` that were compared; ``by``, what ran the file.

    Raises:
        InputError: for arguments out of range, a network that cannot be
            exported, or onnx not installed.
        ExportError: when the file gives other numbers than PyTorch.
    """
    _check_arguments(shape, opset)
    graph, path = Graph(model, labels, preprocess), Path(path)
    if not path.parent.is_dir():
        raise InputError(f'{path} cannot be written: the folder {path.parent} does '
                         'not exist')
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        part = Path(folder) / 'part.onnx'
        _write(graph, part, shape, dynamic, opset)
        if importlib.util.find_spec('onnxruntime'):
            report = _compare(graph, part, _shapes(shape, dynamic))
        else:  # the plain evaluator: the same graph at a size it can do
            if not dynamic:
                _write(graph, Path(folder) / 'small.onnx', SMALL, False, opset)
            small = part if dynamic else Path(folder) / 'small.onnx'
            report = _compare(graph, small, [(1, *SMALL)])
        os.replace(part, path)
    return report


def _check_arguments(shape: Sequence[int], opset: int) -> None:
    if importlib.util.find_spec('onnx') is None:
        raise InputError('exporting needs onnx: pip install onnx onnxruntime')
    if len(shape) != 2 or min(shape) < 1:
        raise InputError('the shape must be (height, width) in pixels, got '
                         f'{tuple(shape)}')
    if opset not in OPSETS:
        raise InputError(f'opset must be {OPSETS[0]} to {OPSETS[-1]}, got '
                         f'{opset}')


def _write(graph: Graph, path: Path, shape: Sequence[int], dynamic: bool,
           opset: int) -> None:
    """Trace the graph into a checked file."""
    import onnx
    output = 'labels' if graph.labels else 'logits'
    last = {0: 'batch', 1: 'height', 2: 'width'}
    maps = {0: 'batch', 2: 'height', 3: 'width'}
    axes = {'image': last if graph.preprocess else maps,
            output: last if graph.labels else maps}
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter('ignore')  # of tracing, and of its deprecation
        torch.onnx.export(
            graph, (_image(graph, (1, *shape)), ), str(path),
            opset_version=opset, input_names=['image'], output_names=[output],
            dynamic_axes=axes if dynamic else None,
            **compat.tracing_exporter())
    content = onnx.load(str(path))
    classes = (getattr(graph.model, 'dataset_meta', None) or {}).get('classes')
    if classes:
        onnx.helper.set_model_props(content, {'classes': '\n'.join(classes)})
    onnx.checker.check_model(content, full_check=True)
    onnx.save(content, str(path))


def _shapes(shape: Sequence[int], dynamic: bool) -> list:
    """(batch, height, width) to compare; free sizes at an odd one too."""
    first = (1, *shape)
    return [first, (2, shape[0] + 11, shape[1] + 22)] if dynamic else [first]


def _image(graph: Graph, shape: Tuple[int, int, int]) -> Tensor:
    """A random input for (batch, height, width)."""
    batch, height, width = shape
    generator = torch.Generator().manual_seed(0)
    if graph.preprocess:
        return torch.randint(0, 256, (batch, height, width, 3),
                             generator=generator, dtype=torch.uint8)
    return torch.randn(batch, 3, height, width, generator=generator)


def _compare(graph: Graph, path: Path, shapes: list) -> dict:
    """What the file and the network's own inference make of random images."""
    run, by = _runner(path)
    differences, sizes = [], []
    for shape in shapes:
        image = _image(graph, shape)
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter('ignore')
            expected = _reference(graph, image).numpy()
        found = run(image.numpy())
        if found.shape != expected.shape:
            raise ExportError(f'the file gives {found.shape} where PyTorch '
                              f'gives {expected.shape}')
        if graph.labels:
            differences.append(float((found != expected).mean()))
            continue
        sizes.append(float(np.abs(expected).max()))
        differences.append(float(np.abs(found - expected).max()))
    # Unlike Python's max, NumPy's hands NaN on.
    difference = float(np.max(differences))
    largest = float(np.max(sizes)) if sizes else None
    if not difference <= TOLERANCE * (1 if largest is None else largest):
        raise ExportError(
            f'the file differs from PyTorch by {difference:.2g}, at shapes '
            f'{shapes}; it was not kept')
    return dict(difference=difference, largest=largest, shapes=shapes, by=by)


def _reference(graph: Graph, image: Tensor) -> Tensor:
    """The network's own inference, not the graph's arrangement of it."""
    image = graph._normalise(image)
    meta = dict(ori_shape=image.shape[2:], img_shape=image.shape[2:])
    logits = graph.model.inference(image, [meta] * image.size(0))
    if not graph.labels:
        return logits
    results = graph.model.postprocess_result(logits)
    return torch.stack([r.pred_sem_seg.data[0] for r in results]).long()


def _runner(path: Path) -> tuple:
    """A function from image to output, and the name of what computes it."""
    if importlib.util.find_spec('onnxruntime'):
        import onnxruntime
        session = onnxruntime.InferenceSession(
            str(path), providers=['CPUExecutionProvider'])
        name = f'onnxruntime {onnxruntime.__version__}'
    else:
        import onnx.reference
        session = onnx.reference.ReferenceEvaluator(str(path))
        name = f'the evaluator of onnx {onnx.__version__}'
    return lambda image: session.run(None, {'image': image})[0], name


def left_out(model: nn.Module) -> List[str]:
    """What the test pipeline does to an image, and the file does not."""
    dataset = next(datasets_of(model.cfg.test_dataloader.dataset))
    steps = [step['type'] for step in dataset['pipeline']
             if not step['type'].startswith(('Load', 'Pack'))]
    if getattr(model.data_preprocessor, 'test_cfg', None):
        steps.append('padding of model.data_preprocessor.test_cfg')
    return steps
