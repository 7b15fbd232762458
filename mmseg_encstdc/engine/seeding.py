"""Seed each iteration and each sample, so that a resumed run repeats them."""
import inspect
import random
from itertools import islice
from typing import Iterable, Iterator, List, Optional, Sequence, Tuple

import numpy as np
import torch
from mmengine.dist import get_rank
from torch.utils.data import DataLoader, Dataset, IterableDataset

__all__ = ['SeededBatches', 'seed_generators', 'seeded_loader']

# Arguments of a DataLoader that SeededBatches and SeededDataset replace.
REPLACED = ('self', 'dataset', 'batch_size', 'shuffle', 'sampler', 'batch_sampler',
            'drop_last')
Sample = Tuple[int, Tuple[int, ...]]  # index in the data set, and its seed


def seed_generators(*numbers: int) -> None:
    """Seed Python's, NumPy's and PyTorch's generators from some numbers >= 0.

    ``torch.manual_seed`` would take ten times as long where CUDA is not in use.
    """
    first, second, third = np.random.SeedSequence(numbers).generate_state(3).tolist()
    random.seed(first)
    np.random.seed(second)
    torch.default_generator.manual_seed(third)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(third)


class SeededDataset(Dataset):
    """Seed the generators before each sample of a data set.

    The augmentation then depends neither on the worker that loads a sample nor on
    what it loaded before. Attributes are those of the data set.

    Args:
        dataset: to wrap.
    """

    def __init__(self, dataset: Dataset):
        self.dataset = dataset

    def __getattr__(self, name: str) -> object:
        if name.startswith('__') or name == 'dataset':
            raise AttributeError(name)
        return getattr(self.dataset, name)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, sample: Sample) -> object:
        index, seed = sample
        seed_generators(*seed)
        return self.dataset[index]


class SeededBatches:
    """Give each index of a batch sampler a seed, and begin at any batch.

    The seed consists of the run's seed, the rank, the number of the pass over the
    data, the number of the batch in the pass, and the position in the batch.

    Args:
        batches: batch sampler, which yields lists of indices.
    """

    def __init__(self, batches: Iterable[Sequence[int]]):
        self.batches = batches
        self.sampler = getattr(batches, 'sampler', None)
        self.batch_size = getattr(batches, 'batch_size', None)
        self.drop_last = getattr(batches, 'drop_last', False)
        self.rank = get_rank()
        self.seed = 0
        self.passes = 0
        self._rest: Optional[Iterator] = None

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[List[Sample]]:
        rest, self._rest = self._rest or enumerate(self.batches), None
        seed = self.seed, self.rank, self.passes
        self.passes += 1
        for number, batch in rest:
            yield [(index, (*seed, number, place)) for place, index in enumerate(batch)]

    def skip(self, count: int) -> None:
        """Leave out some batches, of one pass or several; only indices are drawn."""
        while count:
            if hasattr(self.sampler, 'set_epoch'):
                self.sampler.set_epoch(self.passes)
            rest = enumerate(self.batches)
            drawn = sum(1 for _ in islice(rest, count))
            count -= drawn
            if not count:
                self._rest = rest
            elif drawn:
                self.passes += 1
            else:
                return  # no data; training fails


class _LazyLoader(DataLoader):
    """Start to load when the first batch is asked for.

    MMEngine's loop asks for an iterator before the run resumes.
    """

    def __iter__(self) -> Iterator:
        yield from super().__iter__()


def seeded_loader(loader: DataLoader) -> DataLoader:
    """Return a loader of the same batches whose samples are seeded one by one.

    A loader without a batch sampler is returned as it is.
    """
    if loader.batch_sampler is None or isinstance(loader.dataset, IterableDataset):
        return loader
    options = {name: getattr(loader, name)
               for name in inspect.signature(DataLoader.__init__).parameters
               if name not in REPLACED and hasattr(loader, name)}
    return _LazyLoader(SeededDataset(loader.dataset),
                       batch_sampler=SeededBatches(loader.batch_sampler), **options)
