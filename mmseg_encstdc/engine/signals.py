"""Stop a training at a signal, once it has saved a checkpoint."""
import os
import os.path as osp
import signal
import sys
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Optional, Type

import torch
import torch.distributed as dist
from mmengine.dist import get_comm_device, get_rank, get_world_size
from mmengine.hooks import CheckpointHook, EMAHook, Hook
from mmengine.runner import EpochBasedTrainLoop, Runner

from .processes import STOP_SIGNALS, guard_workers, kill_workers
from .saving import WholeFiles, replace_file

__all__ = ['StopAtSignal', 'StopSignals']

# Seconds within which two signals are one: a launcher passes on what the terminal has
# sent to the whole job.
APART = 1.0
VAL_INTERVAL = 10  # iterations of validation after which several processes agree


class Stopped(KeyboardInterrupt):
    """End the training at a signal.

    Args:
        number: of the signal.
        line: for the user; None where nothing was saved.
    """

    def __init__(self, number: int, line: Optional[str] = None):
        super().__init__()
        self.number = number
        self.line = line


class StopSignals:
    """Note SIGINT, SIGTERM and SIGUSR1 within a ``with`` block.

    Before and after the training, a signal ends the program with exit code 128 + its
    number. While it trains, the first signal is noted in ``number``, and
    :class:`StopAtSignal` stops. The second one ends the process at once, even if it
    waits for another process.

    Attributes:
        number: of the first signal; 0 before it.
        training: whether to note it only.
        work_dir: of the run, once it is known.
        code: exit code, once the block has ended.
    """

    def __init__(self):
        self.number = 0
        self.training = False
        self.work_dir = None
        self.code = 0

    def __enter__(self) -> 'StopSignals':
        guard_workers(True)
        self._handlers = {n: signal.signal(n, self._handle) for n in STOP_SIGNALS}
        reading, self._pipe = os.pipe()
        os.set_blocking(self._pipe, False)
        signal.set_wakeup_fd(self._pipe, warn_on_full_buffer=False)
        threading.Thread(target=self._count, args=(reading, ), daemon=True).start()
        return self

    def __exit__(self, kind: Optional[Type[BaseException]],
                 error: Optional[BaseException],
                 trace: Optional[TracebackType]) -> bool:
        kill_workers()  # Python would wait for them
        guard_workers(False)
        signal.set_wakeup_fd(-1)
        os.close(self._pipe)  # ends the thread
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        if not isinstance(error, Stopped):
            return False
        self.code = 128 + error.number
        if os.environ.get('RANK', '0') == '0':
            print(error.line or self._unsaved(error.number), file=sys.stderr)
        if error.line is None:
            raise SystemExit(self.code)  # other processes may wait for this one
        return True

    def _handle(self, number: int, frame: object) -> None:
        """Note the first signal; stop the program if it does not train."""
        self.number = self.number or number
        if not self.training:
            raise Stopped(self.number)

    def _count(self, pipe: int) -> None:
        """End the process at the second signal, from a thread of its own.

        Python's handlers do not run while the main thread is in PyTorch.
        """
        first = None
        while True:
            received = os.read(pipe, 1)
            if not received:
                os.close(pipe)
                return
            if received[0] not in STOP_SIGNALS:
                continue
            first = first or time.monotonic()
            if time.monotonic() - first > APART:
                line = f'second signal: {self._unsaved(received[0])}\n'
                os.write(2, line.encode())
                kill_workers()
                os._exit(128 + received[0])

    def _unsaved(self, number: int) -> str:
        """Return the line of a process that saves nothing."""
        line = f'stopped by {signal.Signals(number).name}'
        if self.work_dir is None:
            return line
        try:
            with open(osp.join(self.work_dir, 'last_checkpoint')) as file:
                return _continuing(line, file.read().strip())
        except OSError:
            return f'{line}; {self.work_dir} has no checkpoint yet, so start again'


def _continuing(line: str, path: str) -> str:
    """Add to a line how to go on from a checkpoint."""
    return (f'{line}; the last checkpoint is {path}, continue from it with the same '
            'command and --resume')


class StopAtSignal(Hook):
    """Save a checkpoint and stop after the iteration in which a signal came.

    Several processes agree on the iteration: each sends its signal while the next
    iteration runs, so nobody waits, and reads the others' after it. A validation is
    left after its current iteration, and not repeated when the training is resumed.

    Args:
        signals: what has been noted.

    Raises:
        Stopped: after the checkpoint is saved.
    """
    priority = 'LOWEST'  # after all that belongs to the iteration

    def __init__(self, signals: StopSignals):
        self.signals = signals
        self._sent = None  # (work, signal) of the iteration before
        self._ended = 0  # signal that came in the last iteration of an epoch

    def before_train(self, runner: Runner) -> None:
        """Note signals from now on."""
        self.signals.training = True

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: dict = None,
                         outputs: dict = None) -> None:
        """Stop if a signal came, unless the epoch ends here."""
        number = self._agreed()
        if not number:
            return
        if isinstance(runner.train_loop, EpochBasedTrainLoop) and self.end_of_epoch(
                runner.train_dataloader, batch_idx):
            self._ended = number
        else:
            self._stop(runner, number, runner.epoch, runner.iter + 1)

    def after_train_epoch(self, runner: Runner) -> None:
        """Stop if a signal came in the last iteration of the epoch."""
        if self._ended:
            self._stop(runner, self._ended, runner.epoch + 1, runner.iter)

    def after_val_iter(self, runner: Runner, batch_idx: int, data_batch: dict = None,
                       outputs: list = None) -> None:
        """Stop if a signal came; the weights are those of the last iteration."""
        if not self.signals.training or not self._in_step(runner, batch_idx):
            return
        number = self._agreed()
        if number:
            for hook in runner.hooks:
                if isinstance(hook, EMAHook):
                    hook.after_val_epoch(runner)  # the model has the averages now
            runner.message_hub.update_info('needs_validation', True)
            self._stop(runner, number, runner.epoch, runner.iter)

    def after_train(self, runner: Runner) -> None:
        """Let a signal end the program again."""
        if self._sent is not None:
            self._sent[0].wait()
        self.signals.training = False

    def before_val_epoch(self, runner: Runner) -> None:
        """Find the number of iterations that all processes have."""
        if self.signals.training and get_world_size() > 1:
            count = torch.tensor(len(runner.val_dataloader), device=get_comm_device())
            dist.all_reduce(count, dist.ReduceOp.MIN)
            self._val_iters = int(count)

    def _in_step(self, runner: Runner, batch_idx: int) -> bool:
        """Return whether all processes reach this iteration, and agree after it."""
        return get_world_size() == 1 or (
            batch_idx < self._val_iters and batch_idx % VAL_INTERVAL == 0)

    def _agreed(self) -> int:
        """Return the signal at which all processes stop now; 0 if there is none."""
        if get_world_size() == 1:
            return self.signals.number
        before, found = self._sent, 0
        if before is not None:
            before[0].wait()
            found = int(before[1])
        if not found:
            own = torch.tensor(self.signals.number, device=get_comm_device())
            self._sent = dist.all_reduce(own, dist.ReduceOp.MAX, async_op=True), own
        else:
            self._sent = None
        return found

    def _stop(self, runner: Runner, number: int, epoch: int, iteration: int) -> None:
        """Save what follows this iteration, unless it is saved, and stop."""
        path = _save(runner, epoch, iteration)
        if get_world_size() > 1:
            dist.barrier()  # a launcher ends all processes when one has ended
        line = f'stopped by {signal.Signals(number).name} after iteration {iteration}'
        raise Stopped(number, _continuing(line, path))


def _checkpoint_hook(runner: Runner) -> Optional[CheckpointHook]:
    """Return the hook that saves checkpoints; None if there is none."""
    return next((h for h in runner.hooks if isinstance(h, CheckpointHook)), None)


def _save(runner: Runner, epoch: int, iteration: int) -> str:
    """Save a checkpoint as the run's hook does, and return its path.

    Within an epoch it is named after the iteration, in every kind of run.
    """
    hook, meta = _checkpoint_hook(runner), dict(epoch=epoch, iter=iteration)
    if getattr(hook, 'local', True):
        runner = WholeFiles(runner)
    whole = epoch > 0 and iteration == epoch * len(runner.train_dataloader)
    if hook is not None and (whole or not hook.by_epoch):
        step = epoch if hook.by_epoch else iteration
        path = osp.join(hook.out_dir, hook.filename_tmpl.format(step))
        if hook.last_ckpt != path:
            hook._save_checkpoint_with_step(runner, step, meta)
        return path
    folder = runner.work_dir if hook is None else hook.out_dir
    path = osp.join(folder, f'iter_{iteration}.pth')
    runner.save_checkpoint(folder, f'iter_{iteration}.pth', meta=meta, by_epoch=False)
    if get_rank() == 0:
        replace_file(osp.join(runner.work_dir, 'last_checkpoint'),
                     lambda unfinished: Path(unfinished).write_text(path))
    return path
