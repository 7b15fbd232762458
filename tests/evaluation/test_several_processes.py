"""Compare the measures of two processes with those of one, on an odd number of images."""
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import torch
from mmengine.dataset import DefaultSampler, pseudo_collate
from mmengine.evaluator import Evaluator
from torch.utils.data import DataLoader

from mmseg_encstdc.evaluation import ConfusionMetric

ROOT = Path(__file__).parents[2]
IMAGES = 5
CLASSES = ('a', 'b', 'c')

SCRIPT = '''
    import sys
    from mmengine.config import Config
    import mmengine.dist
    sys.path.insert(0, {folder!r})
    from test_several_processes import write_all
    from mmseg_encstdc.engine import start_processes, stop_processes

    start_processes(Config(dict()), 'pytorch')
    assert mmengine.dist.get_world_size() == 2
    write_all(sys.argv[1])
    stop_processes()
'''


class Images(torch.utils.data.Dataset):
    """Images of 6 x 8 pixels with a label and a prediction each."""

    def __len__(self):
        return IMAGES

    def __getitem__(self, i):
        generator = torch.Generator().manual_seed(i)
        prediction, label = torch.randint(3, (2, 1, 6, 8), generator=generator)
        return dict(pred_sem_seg=dict(data=prediction), gt_sem_seg=dict(data=label))


def measures(batch_size, round_up):
    """Return the measures of all images; None in other processes than the first."""
    loader = DataLoader(Images(), batch_size, collate_fn=lambda batch: batch,
                        sampler=DefaultSampler(Images(), False, round_up=round_up))
    evaluator = Evaluator(ConfusionMetric())
    evaluator.dataset_meta = dict(classes=CLASSES)
    for batch in loader:
        evaluator.process(data_samples=batch, data_batch=pseudo_collate(batch))
    return evaluator.evaluate(IMAGES)


def write_all(path):
    """Write the measures of several batch sizes, from the first process."""
    found = [measures(size, up) for size in (1, 2, 3) for up in (True, False)]
    if os.environ.get('RANK', '0') == '0':
        Path(path).write_text(json.dumps(found))


def test_measures_of_two_processes_equal_those_of_one(tmp_path):
    script = tmp_path / 'script.py'
    script.write_text(textwrap.dedent(SCRIPT.format(folder=str(Path(__file__).parent))))
    done = subprocess.run(
        [sys.executable, ROOT / 'tools' / 'dist_run.py', '2', script, tmp_path / 'two'],
        cwd=tmp_path, capture_output=True, text=True,
        env={**os.environ, 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1',
             'PORT': '29533'})
    assert done.returncode == 0, done.stderr
    write_all(tmp_path / 'one')
    one, two = (json.loads((tmp_path / name).read_text()) for name in ('one', 'two'))
    assert one == two
    assert 0 < one[0]['mIoU'] < 100
