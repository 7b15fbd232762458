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
import time
from contextlib import contextmanager
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
    with started_tool(name, *words, **env) as tool:
        return tool.wait()


@contextmanager
def started_tool(name, *words, **env):
    """Start what :func:`run_tool` runs, and yield it as a StartedTool."""
    argv = [str(ROOT / 'tools' / name), *map(str, words)]
    with tempfile.TemporaryDirectory() as folder:
        paths = [os.path.join(folder, stream) for stream in ('out', 'err')]
        for path in paths:
            Path(path).touch()
        process = context.Process(
            target=_run, args=(argv, paths, {'OMP_NUM_THREADS': '1', **env}))
        process.start()
        try:
            yield StartedTool(process, argv, paths)
        finally:
            process.kill()


class StartedTool:
    """A script of tools/ that runs.

    Args:
        process: of multiprocessing.
        argv: script and arguments.
        paths: files of its output and of its errors.
    """

    def __init__(self, process, argv, paths):
        self.process = process
        self.argv = argv
        self.paths = paths

    def output(self):
        """Return what it has printed: (output, errors)."""
        return tuple(Path(path).read_text() for path in self.paths)

    def wait_for(self, condition, seconds=240):
        """Wait until a function returns True."""
        end = time.time() + seconds
        while not condition():
            assert time.time() < end and self.process.is_alive(), self.output()
            time.sleep(0.02)

    def wait(self, seconds=SECONDS):
        """Return the CompletedProcess."""
        self.process.join(seconds)
        if self.process.exitcode is None:
            raise subprocess.TimeoutExpired(self.argv, seconds)
        return subprocess.CompletedProcess(
            self.argv, self.process.exitcode, *self.output())


def _run(argv, paths, env):
    """Run a script as the main program of this process."""
    for stream, path in zip((sys.stdout, sys.stderr), paths):
        stream.flush()
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), stream.fileno())
    os.chdir(ROOT)
    os.environ.update(env)
    multiprocessing.current_process().name = 'MainProcess'  # only that one prints
    sys.argv = argv
    sys.path.insert(0, str(Path(argv[0]).parent))
    import torch
    torch.set_num_threads(1)
    runpy.run_path(argv[0], run_name='__main__')
