"""Build the parts of a run as MMEngine does; an error names the key of the config."""
from typing import Iterator, Tuple

from mmengine.evaluator import Evaluator
from mmengine.logging import MMLogger
from mmengine.runner import Runner
from mmengine.visualization import Visualizer
from torch import nn
from torch.utils.data import DataLoader

from ..config_errors import naming

__all__ = ['TrialRunner', 'modules_of', 'transforms_of']

# Methods of the runner, and the key of the config that each reads.
KEYS = dict(
    setup_env='env_cfg', set_randomness='randomness', build_logger='log_level',
    build_log_processor='log_processor', build_model='model',
    wrap_model='model_wrapper_cfg', build_visualizer='visualizer',
    register_default_hooks='default_hooks', register_custom_hooks='custom_hooks',
    build_train_loop='train_cfg', build_val_loop='val_cfg',
    build_test_loop='test_cfg', build_optim_wrapper='optim_wrapper',
    scale_lr='auto_scale_lr', build_param_scheduler='param_scheduler')


class TrialRunner(Runner):
    """Build parts as MMEngine's runner does; an error names the key of the config.

    It writes no log, loads in the calling process, and starts no visualization
    backend. ``stage`` is 'train', 'val' or 'test', whose parts are built.
    """
    stage = 'train'

    def _log_env(self, env_cfg: dict) -> None:
        """Skip the report of the environment, which takes seconds."""

    def dump_config(self) -> None:
        """Write no config."""

    def build_logger(self, *args, **kwargs) -> MMLogger:
        logger = super().build_logger(*args, **kwargs)
        for handler in logger.handlers:
            handler.setLevel('CRITICAL')
        return logger

    def build_visualizer(self, *args, **kwargs) -> Visualizer:
        visualizer = super().build_visualizer(*args, **kwargs)
        visualizer._vis_backends = {}  # they would open a log of their own
        return visualizer

    def build_dataloader(self, dataloader: dict, *args, **kwargs) -> DataLoader:
        with naming(self.cfg, f'{self.stage}_dataloader'):
            loader = Runner.build_dataloader(dataloader, *args, **kwargs)
        loader.num_workers, loader.timeout = 0, 0
        return loader

    def build_evaluator(self, evaluator: object) -> Evaluator:
        with naming(self.cfg, f'{self.stage}_evaluator'):
            return super().build_evaluator(evaluator)


def _name_errors(method: str, key: str) -> None:
    """Let a method of TrialRunner name its key in errors."""
    stock = getattr(TrialRunner, method)

    def build(self, *args, **kwargs):
        with naming(self.cfg, key):
            return stock(self, *args, **kwargs)

    setattr(TrialRunner, method, build)


for _method, _key in KEYS.items():
    _name_errors(_method, _key)


def transforms_of(dataset: object, key: str) -> Iterator[Tuple[str, object]]:
    """Yield the key and each transform of a data set, also inside wrappers."""
    for i, child in enumerate(getattr(dataset, 'datasets', [])):
        yield from transforms_of(child, f'{key}.datasets[{i}]')
    if hasattr(dataset, 'dataset'):
        yield from transforms_of(dataset.dataset, f'{key}.dataset')
    pipeline = getattr(dataset, 'pipeline', None)
    for i, transform in enumerate(getattr(pipeline, 'transforms', [])):
        yield f'{key}.pipeline[{i}]', transform


def modules_of(model: nn.Module) -> Iterator[Tuple[str, nn.Module]]:
    """Yield the key and each module of a model, 'model.auxiliary_head[0]'."""
    for name, module in model.named_modules():
        key = ''.join(f'[{word}]' if word.isdigit() else f'.{word}'
                      for word in name.split('.') if word)
        yield f'model{key}', module
