"""Check the heads and data sets of binary networks: one class, one channel."""
from ...errors import InputError
from .head_configs import losses_of, name_of

__all__ = ['check_channels', 'check_several_classes', 'has_one_channel']

# Losses over the softmax of the channels; of one channel it is always 1.
SOFTMAX_LOSSES = ('CrossEntropyLoss', 'OhemCrossEntropy', 'TverskyLoss', 'LovaszLoss',
                  'HuasdorffDisstanceLoss', 'SemanticEncodingLoss')
ACCEPTED = ("accepted are CrossEntropyLoss with use_sigmoid=True, OhemCELoss, "
            "BinaryDiceLoss and LovaszLoss with loss_type='binary'")
TWO_CLASSES = ("set num_classes=2 and the data set's metainfo.classes to two names, "
               'the background first')


def check_channels(key: str, head: dict) -> None:
    """Check that a head's losses and threshold can be computed from its channels.

    Args:
        key: of the head in the config, for messages.
        head: its config, with ``num_classes``.

    Raises:
        InputError: for a loss over the softmax of one channel, which is constant, for
            MMSegmentation's DiceLoss of one channel, whose target is the background,
            and for a threshold that no probability or every one exceeds.
    """
    if not has_one_channel(head):
        return
    for loss in losses_of(head):
        kind = name_of(loss)
        if head['num_classes'] == 1 and (_takes_softmax(loss) or kind == 'OhemCELoss'):
            raise InputError(
                f'{key}.num_classes is 1, but {kind} compares classes, and the '
                f'probability of a single one is always 1; {TWO_CLASSES}')
        if _takes_softmax(loss):
            raise InputError(
                f'{key}.out_channels is 1, but the softmax of one channel, which '
                f'{kind} takes, is always 1; {ACCEPTED}; or leave out_channels out')
        if kind == 'DiceLoss':
            raise InputError(
                f'{key} has one channel, for which DiceLoss takes the background as '
                "the class to find; give it dict(type='BinaryDiceLoss') instead")
        _check_class_weight(key, loss)
    if head['num_classes'] == 1 and name_of(head) == 'EncHead' and head.get(
            'use_se_loss', True):
        raise InputError(
            f'{key}.num_classes is 1, so that its presence loss would see the '
            f'background alone; {TWO_CLASSES}, and out_channels=1')
    threshold = head.get('threshold')
    if threshold is not None and not (
            isinstance(threshold, (int, float)) and 0 < threshold < 1):
        raise InputError(f'{key}.threshold is {threshold!r}; it is compared with a '
                         'probability, so it must be in (0, 1), such as 0.5')


def check_several_classes(dataset: str, names: tuple, loader: str) -> None:
    """Raise InputError for a data set of one class, at which every score is 100.

    Args:
        dataset: type of the data set, for messages.
        names: its classes.
        loader: key of its data loader, for messages.
    """
    if len(names) == 1:
        raise InputError(
            f'{dataset} ({loader}) has the class {names[0]} alone, so that nothing '
            "can be wrong; set the data set's metainfo.classes to two names, such as "
            f"('background', '{names[0]}'), num_classes=2 in every head, and "
            'reduce_zero_label=False')


def has_one_channel(head: dict) -> bool:
    """Return whether a head tells two classes apart by one logit."""
    return 1 in (head.get('out_channels'), head.get('num_classes'))


def _check_class_weight(key: str, loss: dict) -> None:
    """Raise InputError unless a sigmoid loss has at most one class weight."""
    weight = loss.get('class_weight')
    if name_of(loss) == 'CrossEntropyLoss' and isinstance(
            weight, (list, tuple)) and len(weight) != 1:
        raise InputError(
            f'{key}.loss_decode.class_weight has {len(weight)} numbers; for one '
            'channel give one, the weight of the foreground relative to the '
            'background')


def _takes_softmax(loss: dict) -> bool:
    """Return whether a loss takes the softmax of the channels."""
    if loss.get('use_sigmoid') or loss.get('use_mask'):
        return False
    return name_of(loss) in SOFTMAX_LOSSES and loss.get('loss_type') != 'binary'
