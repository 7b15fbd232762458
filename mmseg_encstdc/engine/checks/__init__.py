"""Check a run before its first step: config, data, and a trial of one batch.

``layout`` looks at keys and types; ``parts``, ``agreement``, ``image_channels`` and
``one_channel`` compare the parts of a config; ``data`` and ``classes`` read files;
``trial`` builds all parts and passes one batch through them.
"""
from .agreement import check_trained_classes
from .data import check_data
from .image_channels import input_format
from .layout import check_layout
from .parts import check_config
from .trial import try_run, try_training

__all__ = [
    'check_config', 'check_data', 'check_layout', 'check_trained_classes',
    'input_format', 'try_run', 'try_training'
]
