"""Let a training go on where some images cannot be read."""
from typing import Optional

from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner

from ..datasets.bad_images import BAD_IMAGES
from ..errors import InputError

__all__ = ['CountBadImages', 'allow_bad_images', 'bad_images_allowed']

KEY = 'max_bad_images'


class CountBadImages(Hook):
    """Log each image that could not be read, and end a training that has many.

    The number is in the log as ``bad_images``, and the paths are in the checkpoint, so
    that a resumed training goes on counting. Each process counts its own.

    Args:
        limit: number of images that may be left out.

    Raises:
        InputError: when there are more.
    """

    def __init__(self, limit: int):
        self.limit = limit
        self.paths = set()

    def before_train(self, runner: Runner) -> None:
        """Go on counting from a checkpoint."""
        if BAD_IMAGES in runner.message_hub.runtime_info:
            self.paths = set(runner.message_hub.get_info(BAD_IMAGES))

    def before_train_iter(self, runner: Runner, batch_idx: int,
                          data_batch: Optional[dict] = None) -> None:
        """Count what the samples of a batch replace."""
        for sample in data_batch['data_samples']:
            for path, message in sample.metainfo.get(BAD_IMAGES, {}).items():
                if path not in self.paths:
                    self._add(runner, path, message)
        if self.paths:
            runner.message_hub.update_scalar(f'train/{BAD_IMAGES}', len(self.paths))

    def _add(self, runner: Runner, path: str, message: str) -> None:
        self.paths.add(path)
        runner.message_hub.update_info(BAD_IMAGES, sorted(self.paths))
        count = len(self.paths)
        if count > self.limit:
            raise InputError(f'{count} images are left out of training, {KEY} is '
                             f'{self.limit}; the last: {message}')
        runner.logger.warning(f'left out, {count} of {self.limit} images that may be: '
                              f'{message}')


def bad_images_allowed(cfg: Config) -> int:
    """Return ``max_bad_images`` of a config, 0 where it is not set.

    Raises:
        InputError: when it is no whole number of 0 or more.
    """
    limit = cfg.get(KEY, 0)
    if isinstance(limit, bool) or not isinstance(limit, int) or limit < 0:
        raise InputError(f'{KEY} is {limit!r}; give a whole number of 0 or more')
    return limit


def allow_bad_images(cfg: Config) -> None:
    """Wrap the training set, and add the hook, where ``max_bad_images`` is above 0.

    Evaluation leaves no image out, because its figures would be of another set.

    Args:
        cfg: changed in place.
    """
    limit = bad_images_allowed(cfg)
    if limit and cfg.get('train_dataloader') is not None:
        cfg.train_dataloader.dataset = dict(
            type='SkipBadImages', dataset=cfg.train_dataloader.dataset)
        hook = dict(type='CountBadImages', limit=limit)
        cfg.custom_hooks = [*(cfg.get('custom_hooks') or []), hook]
