"""Exporting what a run has made: its method, loaded from the newest checkpoint, writes the files itself."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from .bench import Bench
from .environments import place_of
from .errors import TurntableError, disk_error
from .files import open_beneath
from .jobs import method_of
from .run import Asked, RunFolder
from .tasks.views import ViewsTask
from .turns import checkpoint
from .turns.process import Quarters, WorkerFailed, WorkerProcess
from .turns.python_run import start_method
from .turns.watcher import Watcher

PATIENCE_S = 600.0


@dataclass(frozen=True)
class Loaded:
    """A run's method in a worker of its own, as its newest checkpoint has it.

    Args:
        worker: takes messages: ``export``, ``render``.
        scratch: a folder that it may write to, and that is gone afterwards.
        asked: what was asked of the run.
        saved: the checkpoint.
    """

    worker: WorkerProcess
    scratch: Path
    asked: Asked
    saved: checkpoint.Checkpoint


def newest_checkpoint(bench: Bench, run: str) -> tuple[RunFolder, checkpoint.Checkpoint]:
    """A run's folder, and the checkpoint from which its method is loaded.

    Raises:
        TurntableError: there is no such run, it is a program's, or it has no checkpoint.
    """
    folder = bench.run_folder(run)
    method = method_of(bench, folder.asked())
    if method.is_program:
        raise TurntableError(
            f"Only Python methods export; {method.name} is a program, and what it made lies in "
            f"{folder.path / 'program' / 'out'}."
        )
    saved, _ = checkpoint.newest(folder.path / "checkpoint")
    if saved is None:
        raise TurntableError(f"Run {run} has no checkpoint to export yet; let it run first (turntable run).")
    return folder, saved


@contextmanager
def loaded(bench: Bench, run: str, watcher: Watcher, walls: bool = True) -> Iterator[Loaded]:
    """Load a run's method from its newest checkpoint, in a process of its own.

    Args:
        bench: where the run is.
        run: its id.
        watcher: told how it goes.
        walls: whether the method is walled in, where that can be done.

    Raises:
        TurntableError: as :func:`newest_checkpoint`, or somebody works on the run, or the method fails.
    """
    folder, saved = newest_checkpoint(bench, run)
    asked = folder.asked()
    method = method_of(bench, asked)
    lock = folder.lock()
    if lock is None:
        raise TurntableError(f"Run {run} is being worked on by another turntable; wait for that one.")
    device = bench.row(run).device
    try:
        with (
            lock,
            TemporaryDirectory(dir=folder.path, prefix=".export-") as scratch,
            folder.log_path.open("ab") as log,
        ):
            task = ViewsTask(bench.capture(asked.capture), {})
            quarters = Quarters(
                folder.path,
                place_of(bench, method, walls, watcher.note),
                read=(task.folder,),
                write=(Path(scratch),),
                hidden=task.held_out_files(),
                device=device,
            )
            worker = WorkerProcess(quarters, log, (lock.fileno(),), PATIENCE_S)
            try:
                worker.greet()
                start_method(worker, asked, method, device, saved, task.inputs())
                yield Loaded(worker, Path(scratch), asked, saved)
                worker.stop()
            finally:
                worker.end()
    except WorkerFailed as failure:
        raise TurntableError(f"Run {run} can't be exported: {failure}. See {folder.log_path}.") from failure


def export(bench: Bench, run: str, form: str, out: Path | None, watcher: Watcher, walls: bool = True) -> Path:
    """Write a run's result as a file of the kind ``form`` (its suffix without the dot).

    Args:
        bench: where the run is.
        run: its id.
        form: ``ply``, ``spz`` or whatever the method exports.
        out: where to; ``<run>.<form>`` in the working folder if None.
        watcher: told how it goes.
        walls: whether the method is walled in, where that can be done.

    Returns:
        The file written.

    Raises:
        TurntableError: no such run, no checkpoint yet, or the method writes no such file.
    """
    newest_checkpoint(bench, run)
    target = checked_target(out, f"{run}.{form}")
    try:
        with loaded(bench, run, watcher, walls) as method:
            watcher.run_doing(run, "exporting", 0, 0)
            method.worker.send("export", folder=str(method.scratch))
            files = method.worker.await_("exported")["files"]
            matching = [name for name in files if str(name).endswith(f".{form}")]
            if not matching:
                kinds = ", ".join(sorted({Path(name).suffix[1:] for name in files})) or "nothing"
                raise TurntableError(
                    f"Method {method.asked.method} exports {kinds}, not {form!r}; choose with --as."
                )
            aside = target.with_name(f".{target.name}.{os.getpid()}.tmp")
            try:
                with open_beneath(method.scratch, matching[0]) as made, aside.open("wb") as copy:
                    shutil.copyfileobj(made, copy, 1 << 20)
                aside.replace(target)
            finally:
                aside.unlink(missing_ok=True)
    except OSError as error:
        raise disk_error(error, str(target)) from error
    return target


def checked_target(out: Path | None, otherwise: str) -> Path:
    """Where a file goes: ``--out``, or ``otherwise`` in the working folder.

    Raises:
        TurntableError: its folder isn't there, or it is a folder itself.
    """
    target = (out or Path(otherwise)).expanduser().resolve()
    if not target.parent.is_dir():
        raise TurntableError(f"--out needs a folder that exists; there is no {target.parent}.")
    if target.is_dir():
        raise TurntableError(f"--out names a file, but {target} is a folder.")
    return target
