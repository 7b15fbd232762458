"""Convert checkpoints of MMSegmentation's STDC to the one-channel detail head.

All others load as they are. MMSegmentation's detail head has two channels, for no
detail and detail, with a sigmoid each; ``DetailHead`` has the second alone.
"""
import re
from typing import Optional

from mmengine.config import Config
from mmseg.registry import MODELS

from ..engine.checkpoints import listed, read_checkpoint
from ..errors import InputError
from .conversion import Conversion, State, fit, rename

__all__ = ['SOURCE', 'convert']

SOURCE = 'MMSegmentation'
CONSTANTS = ('laplacian_kernel', 'fusion_kernel')  # of MMSegmentation's head


def convert(path: str, cfg: Config) -> Optional[Conversion]:
    """Convert a checkpoint of MMSegmentation; return None where it fits as it is.

    Args:
        path: file of the checkpoint.
        cfg: the experiment that will load it.

    Raises:
        InputError: when the file cannot be read or does not fit the config.
    """
    content = read_checkpoint(path, remedy='give a file')
    state = content['state_dict']
    model = MODELS.build(cfg.model)
    wanted = model.state_dict()
    if {k: v.shape for k, v in state.items()} == {
            k: v.shape for k, v in wanted.items()}:
        return None
    source = content['meta'].get('converted_from')
    if source:
        raise InputError(f'checkpoint {path} was converted from {source} already, '
                         'for another config')
    state = one_channel(state, wanted)
    check_bias(state, wanted, path)

    def name_of(key: str) -> Optional[str]:
        return None if key.split('.')[-1] in CONSTANTS else key

    return fit(rename(state, name_of, path), model, 'the model', path)


def one_channel(state: State, wanted: State) -> State:
    """Keep the second channel of detail heads where the model has one."""
    cut = dict(state)
    for key, value in state.items():
        if re.match(r'auxiliary_head\..*conv_seg\.', key) and key in wanted:
            if len(value) == 2 and len(wanted[key]) == 1:
                cut[key] = value[1:]
    return cut


def check_bias(state: State, wanted: State, path: str) -> None:
    """Raise InputError naming the heads that would lose a bias."""
    heads = [key[:-len('.conv_seg.bias')] for key in state.keys() - wanted.keys()
             if key.endswith('.conv_seg.bias')]
    if heads:
        raise InputError(
            f'checkpoint {path} has a bias in the last convolution of '
            f'{listed(sorted(heads))}; set bias=True in these heads of the config')
