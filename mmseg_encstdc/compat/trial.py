"""Run a second runner of MMEngine beside the first, and see what it fails at."""
import random
import warnings
from contextlib import contextmanager
from typing import Iterator, List

import numpy as np
import torch
from mmengine.registry import Registry
from mmengine.runner import Runner
from mmengine.utils import ManagerMixin
from mmengine.visualization import Visualizer

__all__ = ['forget_training', 'note_failures', 'unchanged_state']


@contextmanager
def note_failures() -> Iterator[None]:
    """Add ``failed_build`` to exceptions: (registry, config) of the innermost build.

    MMEngine's messages do not say which part of the config failed.
    """
    stock = Registry.build

    def build(self, cfg, *args, **kwargs):
        try:
            return stock(self, cfg, *args, **kwargs)
        except Exception as error:
            if not hasattr(error, 'failed_build'):
                error.failed_build = self, cfg
            raise

    Registry.build = build
    try:
        yield
    finally:
        Registry.build = stock


@contextmanager
def unchanged_state() -> Iterator[None]:
    """Restore random generators, MMEngine's global instances and warnings at exit.

    Global instances are the logger, message hub, default scope and visualizer. A
    second one of the same name would be the first.
    """
    instances = [(kind, dict(kind._instance_dict)) for kind in _managed(ManagerMixin)]
    for kind, _ in instances:
        if issubclass(kind, Visualizer):  # one of the same name would not be built
            kind._instance_dict.clear()
    python, numpy = random.getstate(), np.random.get_state()
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    try:
        with torch.random.fork_rng(devices), warnings.catch_warnings():
            warnings.simplefilter('ignore')  # the run itself repeats them
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        known = dict(instances)
        for kind in _managed(ManagerMixin):
            for name, instance in kind._instance_dict.items():
                if name not in known.get(kind, ()):
                    _close(instance)
            kind._instance_dict.clear()
            kind._instance_dict.update(known.get(kind, {}))


def _managed(kind: type) -> List[type]:
    """Return the subclasses of a class at any depth."""
    found = []
    for child in kind.__subclasses__():
        found += [child, *_managed(child)]
    return found


def _close(instance: ManagerMixin) -> None:
    """Close the log files of a logger."""
    for handler in getattr(instance, 'handlers', []):
        handler.close()


def forget_training(runner: Runner) -> None:
    """Keep a runner that evaluates from building its train loop.

    MMSegmentation's visualization hook asks for ``runner.iter``, for which MMEngine
    builds the train loop, with its data set.
    """
    runner._train_loop = None
