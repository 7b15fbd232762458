"""A contender that answers commands, in whichever process it is."""
from typing import Optional, Union

import torch
from common import process_memory
from common.clocks import clock, events

from mmseg_encstdc.errors import InputError

from .loss_paths import LossPath
from .networks import Trainer

__all__ = ['COMMANDS', 'Player', 'answer']

KINDS = dict(train=Trainer, losses=LossPath)
COMMANDS = ('facts', 'warm_up', 'step', 'memory')
# What PyTorch's allocators and C++ say when memory is short.
OUT_OF_MEMORY = ("can't allocate memory", 'not enough memory',
                 'CUDA out of memory', 'bad_alloc')


class Player:
    """One contender, ready to be measured.

    Args:
        kind (str): 'train' or 'losses'.
        threads (int, optional): of a CPU; default: as they are.
        **job: arguments of :class:`Trainer` or :class:`LossPath`.
    """

    def __init__(self, kind: str, threads: Optional[int] = None, **job):
        if threads:
            torch.set_num_threads(threads)
        self.cuda = job['device'].startswith('cuda')
        if self.cuda:
            torch.cuda.set_device(job['device'])
        self.contender: Union[Trainer, LossPath] = KINDS[kind](**job)

    def facts(self) -> dict:
        """What is known before the first step: classes, and how many
        parameters or bytes of inputs."""
        names = ('classes', 'parameters', 'inputs')
        return {name: getattr(self.contender, name) for name in names
                if hasattr(self.contender, name)}

    def warm_up(self) -> None:
        """Steps that are not measured: tiny ones, then one of full size."""
        self.contender.warm_up()
        self.contender.step()

    def step(self) -> float:
        """Seconds of a step, now."""
        return (events if self.cuda else clock)(self.contender.step)

    def memory(self) -> dict:
        """Bytes that a step takes at its peak.

        Returns:
            dict: ``over``, what is there before: weights, what the optimizer
            keeps, and the batch, but no gradient; on a GPU also ``total``, the
            most that was allocated since the process began.
        """
        self.contender.warm_up()
        if not self.cuda:
            before = process_memory.reset_peak()
            kept = self.contender.step()
            over = process_memory.peak() - before
            del kept  # until now: gradients are part of the peak
            return dict(over=max(over, 0))
        self.contender.step()
        self.contender.release()
        torch.cuda.synchronize()
        total = torch.cuda.max_memory_allocated()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        kept = self.contender.step()
        torch.cuda.synchronize()
        peak = torch.cuda.max_memory_allocated()
        del kept
        return dict(over=peak - before, total=max(total, peak))


def answer(command, *arguments, **job) -> dict:
    """What a call gave: ``value``; ``fallen`` for want of memory; ``error``.

    Other exceptions than these are nobody's input, and pass.
    """
    try:
        return dict(value=command(*arguments, **job))
    except InputError as error:
        return dict(error=str(error))
    except (RuntimeError, MemoryError) as error:
        if not isinstance(error, MemoryError) and not any(
                words in str(error) for words in OUT_OF_MEMORY):
            raise
        return dict(fallen='out of memory')
