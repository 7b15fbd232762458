"""Write checkpoints so that a stop at any moment leaves a whole one."""
import os
import os.path as osp
from contextlib import suppress
from typing import Callable, Dict, Iterable, List

from mmengine.dist import get_world_size, is_main_process
from mmengine.fileio import LocalBackend
from mmengine.hooks import CheckpointHook
from mmengine.runner import Runner

from ..errors import InputError

__all__ = ['SafeCheckpointHook', 'WholeFiles', 'replace_file']

UNFINISHED = '.unfinished'  # suffix of a file that is being written


def replace_file(path: str, write: Callable[[str], None]) -> None:
    """Write a file whole or not at all; an old one of its name stays until then.

    Args:
        path: of the file.
        write: writes the content to the path that it is given, in the same folder.

    Raises:
        InputError: when the file cannot be written, because the disk is full, say.
    """
    unfinished = path + UNFINISHED
    try:
        write(unfinished)
        with open(unfinished, 'rb+') as file:
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    except BaseException as error:
        with suppress(OSError):
            os.remove(unfinished)
        if isinstance(error, OSError):
            raise InputError(f'{path} cannot be written: {error.strerror or error}; '
                             'the checkpoints before it are intact') from error
        raise
    with suppress(OSError):  # not every file system can sync a folder
        folder = os.open(osp.dirname(osp.abspath(path)), os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


class WholeFiles:
    """A runner that writes checkpoints with :func:`replace_file`."""

    def __init__(self, runner: Runner):
        self._runner = runner
        self.written: List[str] = []

    def __getattr__(self, name: str) -> object:
        return getattr(self._runner, name)

    def save_checkpoint(self, out_dir: str, filename: str, *args, **kwargs) -> None:
        """Do what ``Runner.save_checkpoint`` does, in the main process."""
        if is_main_process():
            path = osp.join(out_dir, filename)
            replace_file(path, lambda unfinished: self._runner.save_checkpoint(
                out_dir, osp.basename(unfinished), *args, **kwargs))
            self.written.append(path)


class _LaterRemoval(LocalBackend):
    """A file backend that notes what it should remove."""

    def __init__(self):
        super().__init__()
        self.outdated: List[str] = []

    def remove(self, filepath: str) -> None:
        """Note a file instead of removing it."""
        self.outdated.append(filepath)


class SafeCheckpointHook(CheckpointHook):
    """Save checkpoints as MMEngine's hook does, and never leave a damaged one.

    A file gets its name when it is complete, and earlier ones are removed after that.
    The checkpoint of a step is written again after its validation, with what the
    validation measured. A resumed run removes what a killed one left behind, and
    keeps the best checkpoint of another work dir. Validation without a training saves
    nothing. An ``out_dir`` that is no local folder is written as MMEngine does.

    Raises:
        InputError: when a file cannot be written.
    """
    local = False  # whether files are on a local disk
    training = False
    written_due = False  # whether the last one written was not validated yet

    def before_train(self, runner: Runner) -> None:
        """Look at what there is in the folder of checkpoints."""
        folder = self._folder(runner)
        if '://' not in folder:
            self._adopt(runner, folder)
        super().before_train(runner)
        self.training = True
        runner.message_hub.update_info('processes', get_world_size())
        self.local = isinstance(self.file_backend, LocalBackend)
        if self.local and is_main_process():
            outdated = runner.message_hub.runtime_info.get('outdated_ckpts', [])
            names = os.listdir(folder) if osp.isdir(folder) else []
            for name in names:
                if name in outdated or name.endswith('.pth' + UNFINISHED):
                    os.remove(osp.join(folder, name))

    def _folder(self, runner: Runner) -> str:
        """Return the folder of checkpoints, as MMEngine's ``before_train`` sets it."""
        if self.out_dir is None or self.out_dir == runner.work_dir:
            return runner.work_dir
        return osp.join(str(self.out_dir), osp.basename(runner.work_dir.rstrip('/')))

    def _adopt(self, runner: Runner, folder: str) -> None:
        """Bind the file names of the state that the run resumes from to the folder.

        MMEngine would remove the best checkpoint of the work dir that the state comes
        from; and its path is another if the folder was moved.
        """
        source = runner._load_from if runner._resume else None
        own = source is None or osp.realpath(
            osp.dirname(source)) == osp.realpath(folder)
        info = runner.message_hub.runtime_info
        for key in list(info):
            if key.startswith('best_ckpt') and own and info[key]:
                info[key] = osp.join(folder, osp.basename(info[key]))
            elif key.startswith('best_ckpt') or not own and key in (
                    'keep_ckpt_ids', 'outdated_ckpts'):
                runner.message_hub.pop_info(key)

    def after_val_epoch(self, runner: Runner, metrics: Dict[str, float]) -> None:
        """Save the best checkpoint, and this step's again."""
        if not self.training:
            return
        runner.message_hub.update_info('needs_validation', False)
        super().after_val_epoch(runner, metrics)
        step = runner.epoch if self.by_epoch else runner.iter
        name = osp.basename(self.last_ckpt or '')
        if self.written_due and name == self.filename_tmpl.format(step):
            self._save_checkpoint_with_step(
                WholeFiles(runner), step, dict(epoch=runner.epoch, iter=runner.iter))

    def _save_checkpoint(self, runner: Runner) -> None:
        """Save a checkpoint of a step that may have to be validated yet."""
        runner.message_hub.update_info(
            'needs_validation', runner._val_loop is not None)
        super()._save_checkpoint(WholeFiles(runner) if self.local else runner)

    def _save_best_checkpoint(self, runner: Runner, metrics: Dict[str, float]) -> None:
        """Save a checkpoint if it is the best, then remove the previous best."""
        if not self.local:
            super()._save_best_checkpoint(runner, metrics)
            return
        writer, backend = WholeFiles(runner), self.file_backend
        self.file_backend = later = _LaterRemoval()
        try:
            super()._save_best_checkpoint(writer, metrics)
        finally:
            self.file_backend = backend
        self._remove(path for path in later.outdated if path not in writer.written)

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict) -> None:
        """Write the checkpoint of a step, then the pointer, then remove old ones."""
        if not self.local:
            super()._save_checkpoint_with_step(runner, step, meta)
            return
        hub, outdated = runner.message_hub, []
        self.written_due = hub.runtime_info.get('needs_validation', False)
        if self.max_keep_ckpts > 0 and [*self.keep_ckpt_ids][-1:] != [step]:
            steps = [*(i for i in self.keep_ckpt_ids if i != step), step]
            outdated = [self.filename_tmpl.format(i)
                        for i in steps[:-self.max_keep_ckpts]]
            self.keep_ckpt_ids.clear()
            self.keep_ckpt_ids.extend(steps)
            hub.update_info('keep_ckpt_ids', list(self.keep_ckpt_ids))
            hub.update_info('outdated_ckpts', outdated)
        name = self.filename_tmpl.format(step)
        self.last_ckpt = osp.join(self.out_dir, name)
        hub.update_info('last_ckpt', self.last_ckpt)
        runner.save_checkpoint(
            self.out_dir, name, self.file_client_args,
            save_optimizer=self.save_optimizer,
            save_param_scheduler=self.save_param_scheduler, meta=meta,
            by_epoch=self.by_epoch, backend_args=self.backend_args, **self.args)
        if is_main_process():
            replace_file(osp.join(runner.work_dir, 'last_checkpoint'), self._point)
        self._remove(osp.join(self.out_dir, name) for name in outdated)

    def _point(self, path: str) -> None:
        """Write the path of the last checkpoint into a file."""
        with open(path, 'w') as file:
            file.write(self.last_ckpt)

    def _remove(self, paths: Iterable[str]) -> None:
        """Remove those files that there are, in the main process."""
        if is_main_process():
            for path in paths:
                with suppress(OSError):
                    os.remove(path)
