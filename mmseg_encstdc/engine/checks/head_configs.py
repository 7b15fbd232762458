"""Look up the heads of a model's config and their losses."""
import inspect
from typing import Iterator, List, Tuple

from mmseg.registry import MODELS

__all__ = ['class_heads_of', 'heads_of', 'losses_of', 'name_of']

# Auxiliary heads whose channels are not the data set's classes.
EDGE_HEADS = ('DetailHead', 'STDCHead')


def heads_of(model: dict) -> Iterator[Tuple[str, dict]]:
    """Yield key and config of each head."""
    for name in ('decode_head', 'auxiliary_head'):
        heads = model.get(name) or []
        if isinstance(heads, dict):
            yield f'model.{name}', heads
        else:
            for i, head in enumerate(heads):
                yield f'model.{name}[{i}]', head


def class_heads_of(model: dict) -> List[Tuple[str, dict]]:
    """Return key and config of each head whose channels are the data set's classes."""
    return [(key, head) for key, head in heads_of(model)
            if name_of(head) not in EDGE_HEADS and 'num_classes' in head]


def name_of(part: dict) -> str:
    """Return the type of a config without its scope."""
    return str(part.get('type')).split('.')[-1]


def losses_of(head: dict) -> List[dict]:
    """Return the configs of a head's losses, or its class's default."""
    losses = head.get('loss_decode')
    if losses is None:
        losses = _default_losses(MODELS.get(head['type']))
    return [losses] if isinstance(losses, dict) else list(losses)


def _default_losses(kind: type) -> list:
    """Return the default of ``loss_decode`` of a head's class."""
    for base in getattr(kind, '__mro__', ()):
        parameters = inspect.signature(base.__init__).parameters
        default = getattr(parameters.get('loss_decode'), 'default', inspect._empty)
        if default is not inspect._empty:
            return default
    return []
