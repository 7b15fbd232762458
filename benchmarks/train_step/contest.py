"""Contenders take turns, so that what slows a machine down slows all of them.

On a CPU each has a process of its own, which rests while another works: their
memory is not shared, and each stays warm. On a GPU they share this process and
what its allocator keeps. Peaks of memory are taken in fresh processes.
"""
import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Dict, List

import torch
from common.process_memory import MAPPED

from mmseg_encstdc.errors import InputError

from .player import Player, answer

__all__ = ['Apart', 'Fallen', 'Here', 'contest', 'quotient', 'spread']

FOLDER = Path(__file__).resolve().parents[1]
WARM_UPS = dict(cpu=1, cuda=3)


class Fallen(Exception):
    """A contender that cannot go on for want of memory; says why."""


def read(said: dict):
    """The value of an answer.

    Raises:
        Fallen: when memory ran out.
        InputError: when the input is at fault.
    """
    if 'fallen' in said:
        raise Fallen(said['fallen'])
    if 'error' in said:
        raise InputError(said['error'])
    return said.get('value')


class Here:
    """A player in this process.

    Args:
        job (dict): arguments of :class:`Player`.
    """

    def __init__(self, job: dict):
        self.job, self.player = job, None

    def ask(self, command: str):
        """What the player answers; it is built for the first command."""
        if self.player is None:
            self.player = read(answer(Player, **self.job))
        return read(answer(getattr(self.player, command)))

    def close(self) -> None:
        """Give the GPU's memory back to other processes."""
        self.player = None
        gc.collect()
        torch.cuda.empty_cache()


class Apart:
    """A player in a process of its own, which starts at once.

    Args:
        job (dict): arguments of :class:`Player`.
        environment (dict): variables to add to this process's.
    """

    def __init__(self, job: dict, environment: Dict[str, str] = {}):
        before = os.environ.get('PYTHONPATH')
        path = os.pathsep.join(
            [str(FOLDER), str(FOLDER.parent), *([before] if before else [])])
        self.errors = tempfile.TemporaryFile('w+')
        self.process = subprocess.Popen(
            [sys.executable, '-m', 'train_step.worker'],
            env={**os.environ, 'PYTHONPATH': path, **environment},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors,
            text=True)
        self.built = False
        self.say(json.dumps(job))

    def ask(self, command: str):
        """What the player answers, once it is built.

        Raises:
            Fallen: also when the process was killed.
            RuntimeError: with its last line, when it ended otherwise.
        """
        if not self.built:
            read(self.hear())
            self.built = True
        self.say(command)
        return read(self.hear())

    def say(self, line: str) -> None:
        try:
            print(line, file=self.process.stdin, flush=True)
        except BrokenPipeError:  # hear() says why
            pass

    def hear(self) -> dict:
        line = self.process.stdout.readline()
        if line:
            return json.loads(line)
        code = self.process.wait()
        if code < 0:
            return dict(fallen=f'killed by signal {-code}')
        self.errors.seek(0)
        last = (self.errors.read().strip() or 'no message').splitlines()[-1]
        raise RuntimeError(f'a process that was measured ended: {last}')

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        for each in (self.process.stdin, self.process.stdout, self.errors):
            try:
                each.close()
            except BrokenPipeError:  # what was written and never read
                pass


def contest(jobs: Dict[str, dict], kind: str, rounds: int, memory: bool,
            what: str) -> dict:
    """Measure contenders.

    Args:
        jobs (dict[str, dict]): arguments of :class:`Player`, by name.
        kind (str): of the device, 'cpu' or 'cuda'.
        rounds (int): steps of each.
        memory (bool): take peaks, too.
        what (str): the argument at fault when memory is too small for all.

    Returns:
        dict: by contender ``facts``, ``times_ms`` (see :func:`spread`),
        ``memory_mib`` (see :meth:`Player.memory`), and ``fallen``: why one
        has no figures.

    Raises:
        InputError: when not one contender lasts.
    """
    fallen = {}
    with ExitStack() as stack:
        start = Here if kind == 'cuda' else Apart
        players = {name: start(job) for name, job in jobs.items()}
        for player in players.values():
            stack.callback(player.close)
        facts = ask_all(players, 'facts', fallen)
        for _ in range(WARM_UPS[kind]):
            ask_all(players, 'warm_up', fallen)
        samples = take_turns(players, rounds, fallen)
        check_someone_is_left(players, fallen, what)
    times = {name: spread(samples[name]) if name in samples else None
             for name in jobs}
    peaks = peaks_of(jobs, fallen) if memory else {}
    return dict(facts=facts, times_ms=times, memory_mib=peaks, fallen=fallen)


def ask_all(players: dict, command: str, fallen: Dict[str, str],
            backwards: bool = False) -> dict:
    """Answers by name; who falls leaves ``players`` for ``fallen``."""
    answers = {}
    for name in sorted(players, reverse=backwards):
        try:
            answers[name] = players[name].ask(command)
        except Fallen as why:
            fallen[name] = str(why)
            players.pop(name).close()
    return answers


def take_turns(players: dict, rounds: int,
               fallen: Dict[str, str]) -> Dict[str, List[float]]:
    """Seconds of every step of those that last to the end.

    Each round goes the other way, so that nobody is always the first.
    """
    turns = [ask_all(players, 'step', fallen, backwards=turn % 2 == 1)
             for turn in range(rounds)]
    return {name: [turn[name] for turn in turns] for name in players}


def peaks_of(jobs: Dict[str, dict],
             fallen: Dict[str, str]) -> Dict[str, dict]:
    """MiB by contender, None where memory runs out; one after the other."""
    peaks = {}
    for name, job in jobs.items():
        player = Apart(job, MAPPED)
        try:
            peaks[name] = {key: value / 2**20
                           for key, value in player.ask('memory').items()}
        except Fallen as why:
            peaks[name] = None
            fallen.setdefault(name, str(why))
        finally:
            player.close()
    return peaks


def spread(seconds: List[float]) -> Dict[str, float]:
    """Median, least and quartiles, in milliseconds."""
    ms = [1e3 * value for value in seconds]
    lower, median, upper = statistics.quantiles(
        ms if len(ms) > 1 else 2 * ms, n=4, method='inclusive')
    return dict(median=median, min=min(ms), lower_quartile=lower,
                upper_quartile=upper)


def quotient(figures: dict, above: str, below: str, key: str = 'over') -> dict:
    """Ratios of two contenders; None where one has no figure.

    Returns:
        dict: ``time``, of the medians, and ``memory``, of ``key``.
    """
    def ratio(table: dict, each: str):
        over, under = table.get(above), table.get(below)
        return over[each] / under[each] if over and under else None

    return dict(time=ratio(figures['times_ms'], 'median'),
                memory=ratio(figures['memory_mib'], key))


def check_someone_is_left(players: dict, fallen: Dict[str, str],
                          what: str) -> None:
    """Raise InputError, naming ``what``, when nobody lasted."""
    if not players:
        said = '; '.join(f'{name}: {why}' for name, why in fallen.items())
        raise InputError(f'{what} does not fit into the memory ({said}); give '
                         'a smaller one')
