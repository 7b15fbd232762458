"""Train loops that begin where a checkpoint was saved, and load nothing again."""
from typing import Dict, Optional, Sequence, Tuple, Union

from mmengine.dist import get_rank
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, Runner
from torch import nn
from torch.utils.data import DataLoader

from .seeding import SeededBatches, seed_generators, seeded_loader

__all__ = ['SeededEpochLoop', 'SeededIterLoop']


class _Seeded:
    """Seed a loop, and repeat the validation that a stopped run missed.

    The generators are seeded from the run's seed and the iteration before each
    iteration, so that dropout needs no saved state.

    Args:
        runner: of the run.
        dataloader: of the training set, or its config.
        **kwargs: arguments of MMEngine's loop.
    """

    def __init__(self, runner: Runner, dataloader: Union[DataLoader, Dict], **kwargs):
        self.sampler_seed = None  # a seed of its own in the config
        if isinstance(dataloader, dict):
            self.sampler_seed = dataloader['sampler'].get('seed')
            differs = self._seed_differs(runner)
            dataloader = seeded_loader(runner.build_dataloader(
                dataloader, seed=runner.seed, diff_rank_seed=differs))
        super().__init__(runner, dataloader, **kwargs)

    @staticmethod
    def _seed_differs(runner: Runner) -> bool:
        """Return whether each rank has a seed of its own."""
        return runner._randomness_cfg.get('diff_rank_seed', False)

    def seed_batches(self) -> Optional[SeededBatches]:
        """Seed the order of the data and its augmentation by the seed of the run.

        Only now is it known: a resumed run has the seed of its state.

        Returns:
            The seeded batch sampler; None where MMEngine's loader is used.
        """
        batches = self.dataloader.batch_sampler
        if not isinstance(batches, SeededBatches):
            return None
        batches.seed = self.runner.seed - (
            get_rank() if self._seed_differs(self.runner) else 0)
        if hasattr(batches.sampler, 'seed') and self.sampler_seed is None:
            batches.sampler.seed = batches.seed
        return batches

    def run_missed_validation(self) -> None:
        """Validate if the checkpoint was saved, but the run was stopped before that."""
        if self.runner.message_hub.runtime_info.get('needs_validation'):
            self.validate_if_due()

    def validate_if_due(self) -> None:
        """Validate after the iterations or epochs at which MMEngine's loop does."""
        self._decide_current_val_interval()
        done, length = self.progress()
        if (self.runner.val_loop is not None and done >= self.val_begin
                and (done % self.val_interval == 0 or done == length)):
            self.runner.val_loop.run()

    def seed_iteration(self) -> None:
        """Seed the generators of this process for the next iteration."""
        seed_generators(self.runner.seed, self._iter)


class SeededIterLoop(_Seeded, IterBasedTrainLoop):
    """Train for some iterations, as IterBasedTrainLoop; a resumed run repeats none."""

    def progress(self) -> Tuple[int, int]:
        """Return iterations done and to do."""
        return self._iter, self._max_iters

    def run(self) -> nn.Module:
        """Train, and return the model."""
        self.runner.call_hook('before_train')
        self.runner.call_hook('before_train_epoch')
        self._skip(self.seed_batches())
        if self._iter:
            self.run_missed_validation()
        while self._iter < self._max_iters and not self.stop_training:
            self.runner.model.train()
            self.run_iter(next(self.dataloader_iterator))
            self.validate_if_due()
        self.runner.call_hook('after_train_epoch')
        self.runner.call_hook('after_train')
        return self.runner.model

    def _skip(self, batches: Optional[SeededBatches]) -> None:
        """Leave out what was trained on; a loader of MMEngine has to load it."""
        if batches is not None:
            batches.skip(self._iter)
            self.dataloader_iterator._epoch = batches.passes
        elif self._iter:
            self.runner.logger.warning(
                f'The {self._iter} batches that were trained on are loaded again, '
                'because train_dataloader has no batch sampler.')
            for _ in range(self._iter):
                next(self.dataloader_iterator)

    def run_iter(self, data_batch: Sequence[dict]) -> None:
        """Train on one batch."""
        self.seed_iteration()
        super().run_iter(data_batch)


class SeededEpochLoop(_Seeded, EpochBasedTrainLoop):
    """Train for some epochs, as EpochBasedTrainLoop.

    A run that resumes from a checkpoint inside an epoch leaves out the epoch's first
    batches, unless the length of an epoch has changed.
    """

    def progress(self) -> Tuple[int, int]:
        """Return epochs done and to do."""
        return self._epoch, self._max_epochs

    def run(self) -> nn.Module:
        """Train, and return the model."""
        self.runner.call_hook('before_train')
        self.seed_batches()
        skip = self._used_batches()
        if self._iter and not skip:
            self.run_missed_validation()
        while self._epoch < self._max_epochs and not self.stop_training:
            self.run_epoch(skip)
            skip = 0
            self.validate_if_due()
        self.runner.call_hook('after_train')
        return self.runner.model

    def _used_batches(self) -> int:
        """Return how many batches of this epoch were trained on before."""
        length = len(self.dataloader)
        before = self.runner.message_hub.runtime_info.get('epoch_length')
        self.runner.message_hub.update_info('epoch_length', length)
        used = self._iter - self._epoch * length
        known = isinstance(self.dataloader.batch_sampler, SeededBatches)
        return used if known and before == length and 0 < used <= length else 0

    def run_epoch(self, skip: int = 0) -> None:
        """Train for one epoch.

        Args:
            skip: batches to leave out.
        """
        self.runner.call_hook('before_train_epoch')
        self.runner.model.train()
        batches = self.dataloader.batch_sampler
        if isinstance(batches, SeededBatches):
            batches.passes = self._epoch
            batches.skip(skip)
        for number, batch in enumerate(self.dataloader, skip):
            self.run_iter(number, batch)
        self.runner.call_hook('after_train_epoch')
        self._epoch += 1

    def run_iter(self, idx: int, data_batch: Sequence[dict]) -> None:
        """Train on one batch."""
        self.seed_iteration()
        super().run_iter(idx, data_batch)
