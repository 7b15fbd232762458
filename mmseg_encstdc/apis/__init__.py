"""From a checkpoint to label maps, and to ONNX, in Python.

    from mmseg_encstdc.apis import load, predict
    model = load('work_dirs/stdc1_camvid/iter_600.pth')
    labels = predict(model, 'street.jpg')  # (H, W), uint8

``exporting`` has what ``tools/export.py`` does.
"""
from .loading import load
from .predicting import find_images, predict, read_image

__all__ = ['find_images', 'load', 'predict', 'read_image']
