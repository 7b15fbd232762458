"""Write a segmentation network as an ONNX file, compared with PyTorch."""
import importlib.util
import os
import tempfile
import warnings
from pathlib import Path
from typing import Callable, Dict, List, Sequence, Tuple, Union

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import compat
from ..engine.checks.image_channels import input_format, network_channels
from ..engine.configs import datasets_of
from ..errors import InputError

__all__ = [
    'ExportError', 'Graph', 'check_exportable', 'export_onnx', 'left_out'
]

OPSETS = range(13, 21)  # what PyTorch's tracing exporter writes
TOLERANCE = 1e-3  # relative to the largest logit, or a fraction of the pixels
EVALUATOR_SIZE = (64, 96)  # onnx's own evaluator takes seconds for it
Shape = Tuple[int, int, int]  # batch, height and width


class ExportError(RuntimeError):
    """Report that an ONNX file differs from its network, in one line."""


class Graph(nn.Module):
    """Compute what the ONNX file computes.

    Args:
        model: what ``load`` returns.
        labels: return class ids instead of logits.
        preprocess: take images as the config's loader reads them, and normalise them.

    Raises:
        InputError: see :func:`check_exportable`.
    """

    def __init__(self, model: nn.Module, labels: bool = False,
                 preprocess: bool = False):
        super().__init__()
        check_exportable(model)
        self.model = model
        self.labels = labels
        self.preprocess = preprocess
        self.bands, self.dtype = input_format(model.cfg)
        self.eval()

    def forward(self, image: Tensor) -> Tensor:
        """Return logits (B, C, H, W), or class ids (B, H, W) int64.

        Args:
            image: normalised, (B, C_in, H, W) float32; with ``preprocess``,
                (B, H, W, bands) uint8, or float32 where the files are of another
                type; three bands are BGR.
        """
        logits = self._logits(self.normalise(image))
        if not self.labels:
            return logits
        if logits.size(1) > 1:
            return logits.argmax(1)
        threshold = self.model.decode_head.threshold
        return (logits.sigmoid() > threshold).squeeze(1).long()

    def normalise(self, image: Tensor) -> Tensor:
        """Return an image as the network takes it, (B, C_in, H, W) float32."""
        if not self.preprocess:
            return image
        preprocessor = self.model.data_preprocessor
        image = image.permute(0, 3, 1, 2)
        if compat.swaps_channels(preprocessor) and self.bands == 3:
            image = image.flip(1)
        image = image.float()
        if getattr(preprocessor, 'mean', None) is None:
            return image
        return (image - preprocessor.mean) / preprocessor.std

    def _logits(self, image: Tensor) -> Tensor:
        """Return logits (B, C, H, W), without running the auxiliary heads."""
        scale = self.model.test_cfg.get('scale', 1)
        resized = image if scale == 1 else F.interpolate(
            image, scale_factor=scale, mode='bilinear', align_corners=True,
            recompute_scale_factor=True)  # a size would fix that of the image
        logits = self.model.encode_decode(
            resized, [dict(img_shape=resized.shape[2:])])
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
    """Write an ONNX file and compare it with PyTorch on random images.

    Only a file that passes is kept. It has standard operators alone, and the
    names of the classes in its metadata, one a line.

    Args:
        model: what ``load`` returns, on the CPU.
        path: file to write.
        shape: (height, width) of the image in pixels.
        labels: write class ids (B, H, W), int64, instead of logits
            (B, C, H, W).
        preprocess: take (B, H, W, bands), uint8 or float32 as the config's loader
            reads it, instead of normalised (B, C_in, H, W). Three bands are BGR.
        dynamic: let batch, height and width change.
        opset: version of ONNX's operators, 13 to 20.

    Returns:
        ``difference``, the largest one of the logits, or the fraction of pixels
        whose label differs; ``largest``, the largest logit (None for labels);
        ``shapes``, (batch, height, width) of the images that were compared;
        ``by``, the name of what ran the file.

    Raises:
        InputError: when an argument is out of range, the network cannot be
            exported, or onnx is not installed.
        ExportError: when the file computes other values than PyTorch.
    """
    _check_arguments(shape, opset)
    graph, path = Graph(model, labels, preprocess), Path(path)
    if not path.parent.is_dir():
        raise InputError(f'{path} cannot be written: the folder {path.parent} does '
                         'not exist')
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        written = compared = Path(folder) / 'written.onnx'
        _write(graph, written, shape, dynamic, opset)
        if importlib.util.find_spec('onnxruntime'):
            shapes = [(1, *shape)]
            if dynamic:
                shapes.append((2, shape[0] + 11, shape[1] + 22))
        else:
            shapes = [(1, *EVALUATOR_SIZE)]
            if not dynamic:  # compare the same graph, at a size for the evaluator
                compared = Path(folder) / 'small.onnx'
                _write(graph, compared, EVALUATOR_SIZE, False, opset)
        report = _compare(graph, compared, shapes)
        os.replace(written, path)
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
    """Trace the graph, add the classes, and check and write the file."""
    import onnx
    output = 'labels' if graph.labels else 'logits'
    bhw, bchw = ({0: 'batch', 1: 'height', 2: 'width'},
                 {0: 'batch', 2: 'height', 3: 'width'})
    axes = {'image': bhw if graph.preprocess else bchw,
            output: bhw if graph.labels else bchw}
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter('ignore')  # of tracing, and of its deprecation
        torch.onnx.export(
            graph, (_random_image(graph, (1, *shape)), ), str(path),
            opset_version=opset, input_names=['image'], output_names=[output],
            dynamic_axes=axes if dynamic else None,
            **compat.tracing_exporter())
    content = onnx.load(str(path))
    classes = (getattr(graph.model, 'dataset_meta', None) or {}).get('classes')
    if classes:
        onnx.helper.set_model_props(content, {'classes': '\n'.join(classes)})
    onnx.checker.check_model(content, full_check=True)
    onnx.save(content, str(path))


def _random_image(graph: Graph, shape: Shape) -> Tensor:
    """Return a random image from a fixed seed, as an input of the graph."""
    batch, height, width = shape
    generator = torch.Generator().manual_seed(0)
    if not graph.preprocess:
        channels = next(network_channels(graph.model.cfg.model), None)
        return torch.randn(batch, channels.channels if channels else graph.bands,
                           height, width, generator=generator)
    image = torch.randint(0, 256, (batch, height, width, graph.bands),
                          generator=generator, dtype=torch.uint8)
    return image if graph.dtype == 'uint8' else image.float()


def _compare(graph: Graph, path: Path, shapes: List[Shape]) -> Dict[str, object]:
    """Compare a file with the network's inference; return export_onnx's report.

    Raises:
        ExportError: when they differ by more than ``TOLERANCE``.
    """
    run, by = _runner(path)
    differences, largest = [], None if graph.labels else 0.
    for shape in shapes:
        image = _random_image(graph, shape)
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter('ignore')
            expected = _inference(graph, image).numpy()
        found = run(image.numpy())
        if found.shape != expected.shape:
            raise ExportError(f'the file gives {found.shape} where PyTorch '
                              f'gives {expected.shape}')
        if graph.labels:
            differences.append((found != expected).mean())
        else:
            largest = float(np.maximum(largest, np.abs(expected).max()))
            differences.append(np.abs(found - expected).max())
    difference = float(np.max(differences))  # NaN if one is, unlike Python's max
    if not difference <= TOLERANCE * (1 if graph.labels else largest):
        raise ExportError(
            f'the file differs from PyTorch by {difference:.2g}, at shapes '
            f'{shapes}; it was not kept')
    return dict(difference=difference, largest=largest, shapes=shapes, by=by)


def _inference(graph: Graph, image: Tensor) -> Tensor:
    """Return what ``graph`` has to, by the segmentor's own methods."""
    image = graph.normalise(image)
    meta = dict(ori_shape=image.shape[2:], img_shape=image.shape[2:])
    logits = graph.model.inference(image, [meta] * image.size(0))
    if not graph.labels:
        return logits
    results = graph.model.postprocess_result(logits)
    return torch.stack([r.pred_sem_seg.data[0] for r in results]).long()


def _runner(path: Path) -> Tuple[Callable[[np.ndarray], np.ndarray], str]:
    """Return a function from image to output, and the name of what runs it."""
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
    """Return the steps of the test pipeline that the ONNX file does not have."""
    dataset = next(datasets_of(model.cfg.test_dataloader.dataset))
    steps = [step['type'] for step in dataset['pipeline']
             if not step['type'].startswith(('Load', 'Pack'))]
    if getattr(model.data_preprocessor, 'test_cfg', None):
        steps.append('padding of model.data_preprocessor.test_cfg')
    return steps
