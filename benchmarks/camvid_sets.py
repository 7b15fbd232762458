"""Name the sets of experiments that benchmarks/camvid.py runs."""
from typing import Dict, List, NamedTuple, Tuple

__all__ = ['SETS', 'Experiment']

OWN = 'configs'  # of this project
VARIANTS = 'benchmarks/experiments'


class Experiment(NamedTuple):
    """A training on CamVid and its evaluation.

    Args:
        config: path in this repository.
        iterations: length of the training.
        seeds: one run each.
        stock: whether MMSegmentation's classes stay in place.
        options: of ``--cfg-options``.
    """
    config: str
    iterations: int
    seeds: Tuple[int, ...] = (0, 1)
    stock: bool = False
    options: Tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Return the name of the config without its folder and suffix."""
        return self.config.rpartition('/')[2][:-len('.py')]


def _each(folder: str, iterations: int, *names: str, **more) -> List[Experiment]:
    return [Experiment(f'{folder}/{name}.py', iterations, **more) for name in names]


def _on_gpu(name: str, batch: int) -> Experiment:
    """Return a run of whole images in large batches."""
    return Experiment(f'{OWN}/{name}.py', 4000, options=(
        f'train_dataloader.batch_size={batch}', 'train_dataloader.num_workers=8'))


SETS: Dict[str, List[Experiment]] = dict(
    # Equal data, batch, crop, rate and length; the losses are each one's own.
    stock=_each(OWN, 600, 'stdc1_camvid') + _each(
        VARIANTS, 600, 'stock_stdc1', stock=True),
    # The ideas of the papers, each left out.
    stdc=_each(OWN, 600, 'stdc1_camvid') + _each(
        VARIANTS, 600, 'stdc1_no_detail', 'stdc1_no_ohem', 'stdc1_plain'),
    encnet=_each(OWN, 600, 'encnet_r18_camvid') + _each(
        VARIANTS, 600, 'fcn_r18', 'encnet_r18_no_se', 'encnet_r18_k8',
        'encnet_r18_k64'),
    gpu=[_on_gpu('stdc1_camvid', 24), _on_gpu('stdc2_camvid', 24),
         _on_gpu('encnet_r50_camvid', 16)],
)
