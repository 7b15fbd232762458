"""Call the ONNX exporter of any PyTorch version."""
import inspect

import torch

__all__ = ['tracing_exporter']


def tracing_exporter() -> dict:
    """Return the arguments with which ``torch.onnx.export`` traces.

    The newer exporter, ``dynamo=True``, takes ten times as long for these networks
    and, with dynamic sizes, leaves the Encoding operator in the file. Before torch
    2.5 there was no such argument.
    """
    known = inspect.signature(torch.onnx.export).parameters
    return dict(dynamo=False) if 'dynamo' in known else {}
