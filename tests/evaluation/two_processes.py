"""Evaluate a metric in two processes of one gloo group."""
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BEGIN = """
import json
import sys
import numpy as np
import torch
import torch.distributed as dist
from mmengine.dataset import DefaultSampler
import mmseg_encstdc
from mmseg.registry import METRICS

rank, folder, found = int(sys.argv[1]), sys.argv[2], {}
dist.init_process_group('gloo', init_method=f'file://{folder}/store', rank=rank,
                        world_size=2)
"""
END = """
with open(f'{folder}/{rank}.json', 'w') as file:
    json.dump(found, file)
dist.barrier()
dist.destroy_process_group()
"""


def run_two_processes(folder, body):
    """Run ``body``, which fills ``found``; return ``found`` of each process."""
    script = folder / 'script.py'
    script.write_text(BEGIN + textwrap.dedent(body) + END)
    processes = [
        subprocess.Popen(
            [sys.executable, '-W', 'ignore', str(script), str(rank), str(folder)],
            cwd=folder, env={**os.environ, 'PYTHONPATH': str(ROOT)},
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        for rank in (0, 1)]
    errors = [process.communicate(timeout=120)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], errors
    return [json.loads((folder / f'{rank}.json').read_text()) for rank in (0, 1)]
