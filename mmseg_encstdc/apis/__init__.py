"""Load a trained network and predict label maps with it, in Python.

    from mmseg_encstdc.apis import load, predict
    model = load('work_dirs/stdc1_camvid/iter_600.pth')
    labels = predict(model, 'street.jpg')  # (H, W), uint8

``exporting`` writes ONNX files, as ``tools/export.py`` does.
"""
from .loading import load
from .predicting import find_images, predict, read_image

__all__ = ['find_images', 'load', 'predict', 'read_image']
