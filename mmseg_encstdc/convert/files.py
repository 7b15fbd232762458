"""Convert a checkpoint file, and write the result."""
import os
from collections import Counter
from types import ModuleType

import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope

from .. import __version__
from ..engine.configs import datasets_of, load_config, metainfo_of
from ..errors import InputError
from .conversion import Conversion

__all__ = ['convert_file', 'save']


def convert_file(converter: ModuleType, source: str, target: str,
                 config: str) -> str:
    """Convert ``source`` to ``target``, and return a message for the user.

    Args:
        converter: a module with ``SOURCE`` and ``convert(path, cfg)``.
        source: checkpoint to convert.
        target: file to write.
        config: file of the experiment that will load it.

    Raises:
        InputError: naming the file or key at fault and what is accepted.
    """
    if os.path.abspath(source) == os.path.abspath(target):
        raise InputError(f'DST {target} is SRC; give another file')
    cfg = load_config(config)
    init_default_scope(cfg.get('default_scope', 'mmseg'))
    found = converter.convert(source, cfg)
    if found is None:
        return (f'{source} fits {config} as it is: give it to the tools, or to '
                'load_from; nothing was written')
    save(found, target, cfg, converter.SOURCE)
    return report(found, target)


def save(found: Conversion, path: str, cfg: Config, source: str) -> None:
    """Write a checkpoint of MMEngine; leave no partial file when that fails.

    Its meta holds the classes and palette of the config's test set, and ``source``.

    Raises:
        InputError: when the file cannot be written.
    """
    dataset = next(datasets_of(cfg.test_dataloader.dataset))
    meta = {key: value for key, value in metainfo_of(dataset).items()
            if key in ('classes', 'palette') and not isinstance(value, str)}
    content = dict(
        state_dict=found.state,
        meta=dict(dataset_meta=meta, converted_from=source, part=found.part,
                  left_out=found.left_out, mmseg_encstdc_version=__version__))
    if os.path.isdir(path):
        raise InputError(f'{path} cannot be written: it is a folder')
    partial = f'{path}.partial'
    try:
        os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
        torch.save(content, partial)
        os.replace(partial, path)
    except (OSError, RuntimeError) as error:
        raise InputError(f'{path} cannot be written: {error}') from error
    finally:
        if os.path.exists(partial):
            os.remove(partial)


def report(found: Conversion, target: str) -> str:
    """List what was written, and the entries left out, counted by module."""
    lines = [f'{target}: {len(found.state)} entries for {found.part}']
    groups = Counter(module_of(key) for key in found.left_out)
    lines += [f'left out, the config has no use for it: {group} '
              f'({count} entries)' for group, count in groups.items()]
    return '\n'.join(lines)


def module_of(key: str) -> str:
    """Return the outermost module of a key, or the second one in a wrapper."""
    parts = key.split('.')
    for prefix in (['cp', 'backbone'], ['pretrained'], ['auxiliary_head']):
        if parts[:len(prefix)] == prefix:
            return '.'.join(parts[:len(prefix) + 1])
    return parts[0]
