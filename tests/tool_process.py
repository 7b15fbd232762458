"""Run the scripts of tools/ in processes that have imported the libraries already.

Importing them takes a tool about five seconds. A server imports them once; each run is
a fork of it. Tests of what an import does start a new Python instead.
"""
import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
LIBRARIES = ['torch.utils.data', 'mmengine.runner', 'mmseg_encstdc', 'mmseg.apis',
             'mmseg.datasets', 'mmseg.models', 'mmseg_encstdc.cli',
             'mmseg_encstdc.apis']
SECONDS = 900

context = multiprocessing.get_context('forkserver')
context.set_forkserver_preload(LIBRARIES)


def run_tool(name, *words, **env):
    """Run tools/NAME with some arguments.

    Args:
        name: of the script, 'train.py'.
        words: its arguments.
        env: environment variables to add. The libraries are imported without them.

    Returns:
        A subprocess.CompletedProcess with the output as text.
    """
    argv = [str(ROOT / 'tools' / name), *map(str, words)]
    with tempfile.TemporaryDirectory() as folder:
        paths = [os.path.join(folder, stream) for stream in ('out', 'err')]
        process = context.Process(
            target=_run, args=(argv, paths, {'OMP_NUM_THREADS': '1', **env}))
        process.start()
        process.join(SECONDS)
        if process.exitcode is None:
            process.kill()
            raise subprocess.TimeoutExpired(argv, SECONDS)
        return subprocess.CompletedProcess(
            argv, process.exitcode, *(Path(path).read_text() for path in paths))


def _run(argv, paths, env):
    """Run a script as the main program of this process."""
    for stream, path in zip((sys.stdout, sys.stderr), paths):
        stream.flush()
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), stream.fileno())
    os.chdir(ROOT)
    os.environ.update(env)
    sys.argv = argv
    sys.path.insert(0, str(Path(argv[0]).parent))
    import torch
    torch.set_num_threads(1)
    runpy.run_path(argv[0], run_name='__main__')
