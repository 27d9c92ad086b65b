"""Exporting what a run has made: its method, loaded from the newest checkpoint, writes the files itself."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

from .bench import Bench
from .environments import place_of
from .errors import TurntableError, disk_error
from .files import open_beneath
from .jobs import method_of
from .tasks.views import ViewsTask
from .turns import checkpoint
from .turns.process import Quarters, WorkerFailed, WorkerProcess
from .turns.python_run import start_method
from .turns.watcher import Watcher

PATIENCE_S = 600.0


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
    folder = bench.run_folder(run)
    asked = folder.asked()
    method = method_of(bench, asked)
    if method.is_program:
        raise TurntableError(
            f"Only Python methods export; {method.name} is a program, and what it made lies in "
            f"{folder.path / 'program' / 'out'}."
        )
    saved, _ = checkpoint.newest(folder.path / "checkpoint")
    if saved is None:
        raise TurntableError(f"Run {run} has no checkpoint to export yet; let it run first (turntable run).")
    target = (out or Path(f"{run}.{form}")).expanduser().resolve()
    if not target.parent.is_dir():
        raise TurntableError(f"--out needs a folder that exists; there is no {target.parent}.")
    if target.is_dir():
        raise TurntableError(f"--out names a file, but {target} is a folder.")
    lock = folder.lock()
    if lock is None:
        raise TurntableError(f"Run {run} is being worked on by another turntable; wait for that one.")
    try:
        with lock, TemporaryDirectory(dir=folder.path, prefix=".export-") as scratch:
            with folder.log_path.open("ab") as log:
                task = ViewsTask(bench.capture(asked.capture), {})
                quarters = Quarters(
                    folder.path,
                    place_of(bench, method, walls, watcher.note),
                    read=(task.folder,),
                    write=(Path(scratch),),
                    hidden=task.held_out_files(),
                    device=bench.row(run).device,
                )
                worker = WorkerProcess(quarters, log, (lock.fileno(),), PATIENCE_S)
                try:
                    worker.greet()
                    start_method(worker, asked, method, bench.row(run).device, saved, task.inputs())
                    watcher.run_doing(run, "exporting", 0, 0)
                    worker.send("export", folder=scratch)
                    files = worker.await_("exported")["files"]
                    worker.stop()
                finally:
                    worker.end()
            matching = [name for name in files if str(name).endswith(f".{form}")]
            if not matching:
                kinds = ", ".join(sorted({Path(name).suffix[1:] for name in files})) or "nothing"
                raise TurntableError(
                    f"Method {asked.method} exports {kinds}, not {form!r}; choose with --as."
                )
            aside = target.with_name(f".{target.name}.{os.getpid()}.tmp")
            try:
                with open_beneath(Path(scratch), matching[0]) as made, aside.open("wb") as copy:
                    shutil.copyfileobj(made, copy, 1 << 20)
                aside.replace(target)
            finally:
                aside.unlink(missing_ok=True)
    except WorkerFailed as failure:
        raise TurntableError(f"Run {run} can't be exported: {failure}. See {folder.log_path}.") from failure
    except OSError as error:
        raise disk_error(error, str(target)) from error
    return target
