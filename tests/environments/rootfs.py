"""A root file system for images of the tests: this machine's Python and NumPy, and the libraries that they load.

No registry is asked: ``FROM scratch`` and ``ADD`` of this archive is all of an image.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy

LEFT_OUT = frozenset(
    {"site-packages", "dist-packages", "test", "tests", "idlelib", "lib2to3", "ensurepip", "turtledemo", "tkinter",
     "__pycache__", "pydoc_data", "f2py", "include"}
)  # fmt: skip
LEFT_OUT_KINDS = frozenset({".a", ".pyc", ".pyi"})
HOME = Path("/opt/python")


def write_rootfs(target: Path, with_numpy: bool = True) -> None:
    """Write it to ``target``, a tar; Python is there as ``python3``, on the path that engines set."""
    library = Path(os.__file__).parent
    inside = HOME / "lib" / library.name
    files = {HOME / "bin" / "python3": Path(os.path.realpath(sys.executable))}
    files |= _tree(library, inside)
    dynamic = Path(sys.base_prefix) / "lib" / library.name / "lib-dynload"
    files |= _tree(dynamic, inside / "lib-dynload")
    if with_numpy:
        packages = Path(numpy.__file__).parents[1]
        for name in ("numpy", "numpy.libs"):
            # Among Python's own modules: Debian's build looks into another folder for packages than others do.
            files |= _tree(packages / name, inside / name)
    programs = [path for path in files.values() if ".so" in path.name or path.name.startswith("python")]
    own = {str(path) for path in files.values()}
    for path in sorted({library for program in programs for library in _libraries(program)}):
        if os.path.normpath(path) not in own:
            files.setdefault(path, path.resolve())
    with tarfile.open(target, "w") as tar:
        for path in sorted(files):
            tar.add(files[path], str(path).lstrip("/"), recursive=False)
        link = tarfile.TarInfo("usr/bin/python3")
        link.type, link.linkname = tarfile.SYMTYPE, str(HOME / "bin" / "python3")
        tar.addfile(link)


def _tree(folder: Path, inside: Path) -> dict[Path, Path]:
    found = {}
    for path in folder.rglob("*") if folder.is_dir() else ():
        relative = path.relative_to(folder)
        if path.is_file() and not LEFT_OUT & set(relative.parts) and path.suffix not in LEFT_OUT_KINDS:
            found[inside / relative] = path.resolve()
    return found


def _libraries(program: Path) -> list[Path]:
    answer = subprocess.run(["ldd", program], capture_output=True, text=True, check=False)
    return [Path(word) for word in answer.stdout.split() if word.startswith("/")]
