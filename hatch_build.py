"""Compiles the kernels of the built-in method `splat` into the package.

Hatchling calls :class:`CustomBuildHook` for `pip install .`, `pip install -e .`, and a wheel made from an
sdist; `python hatch_build.py` does the same in place, for a checkout that is on the path already. The
compiler is `$CC`, else cc, gcc or clang, else the one in the PyPI package `ziglang`, which pip then fetches
for the build alone.

Each instruction set is one shared library, and the processor chooses at run time. A compiler that can't
build a set leaves it out; `baseline` must work. Flags for macOS are written from its documentation: they
could not be tried here.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

try:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface
except ImportError:  # run by hand, where hatchling need not be installed
    BuildHookInterface = object

ROOT = Path(__file__).resolve().parent
FOLDER = Path("src/turntable/methods/splat")
SOURCE = FOLDER / "kernels" / "splat.c"
INSIDE = "turntable/methods/splat"

# No -ffast-math: the kernels tell NaN from numbers. These two only say that nobody reads errno or the floating
# point exception flags.
FLAGS = shlex.split("-std=gnu11 -O3 -fPIC -shared -fvisibility=hidden -fno-math-errno -fno-trapping-math")
SETS = {
    "baseline": [],
    "avx2": shlex.split("-mavx2 -mfma"),
    "avx512": shlex.split(
        "-mavx2 -mfma -mavx512f -mavx512bw -mavx512dq -mavx512vl -mprefer-vector-width=512"
    ),
}


class NoCompiler(Exception):
    """There is no C compiler, or none that works; the message says what was tried."""


def target_is_x86_64() -> bool:
    """Whether the interpreter that the package is built for runs on x86-64 (under Rosetta it does, too)."""
    return sysconfig.get_platform().endswith(("x86_64", "amd64")) or platform.machine() in ("x86_64", "AMD64")


def instruction_sets() -> list[str]:
    """What can be built for this machine: three sets on x86-64; elsewhere (NEON is part of arm64) one."""
    return list(SETS) if target_is_x86_64() else ["baseline"]


def system_compiler() -> list[str] | None:
    """`$CC`, else cc, gcc or clang from the path; None where there is none that can compile a small program.

    Slim containers have a gcc without the C library's headers: it is there and can't compile.
    """
    try:
        chosen = shlex.split(os.environ.get("CC", ""))
    except ValueError as error:
        raise NoCompiler(f"$CC must be a command, not {os.environ['CC']!r} ({error}).") from None
    for command in [*([chosen] if chosen else []), ["cc"], ["gcc"], ["clang"]]:
        if shutil.which(command[0]) and can_compile(command):
            return command
        if command is chosen:
            sys.stderr.write(
                f"$CC ({shlex.join(chosen)}) is not there or can't compile; looking for another one\n"
            )
    return None


def can_compile(command: list[str]) -> bool:
    """Whether a compiler makes a program that needs the C library, threads and mathematics."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "try.c")
        source.write_text(
            "#include <math.h>\n#include <pthread.h>\n#include <stdlib.h>\n"
            "int main(int n, char **a) { (void)a; return pthread_self() == 0 || sqrt((double)n) < 0; }\n"
        )
        made = [*command, str(source), "-o", str(Path(folder, "try")), *platform_flags(command)]
        return subprocess.run(made, capture_output=True, check=False).returncode == 0


def zig_compiler() -> list[str] | None:
    """The compiler in the package `ziglang`, if it is installed for this interpreter."""
    if importlib.util.find_spec("ziglang") is None:
        return None
    return [sys.executable, "-m", "ziglang", "cc"]


def platform_flags(compiler: list[str]) -> list[str]:
    """What the operating system wants besides: threads and mathematics on Linux, target and name on macOS."""
    zig = "ziglang" in compiler
    if sys.platform == "darwin":
        machine = "x86_64" if target_is_x86_64() else "arm64"
        deployment = os.environ.get("MACOSX_DEPLOYMENT_TARGET", "11.0")
        if zig:
            return ["-target", f"{'aarch64' if machine == 'arm64' else machine}-macos.{deployment}"]
        return ["-arch", machine, f"-mmacosx-version-min={deployment}"]
    # zig builds for the machine that it runs on unless told; a wheel must run on its neighbours too
    return ["-mcpu=baseline"] * zig + ["-pthread", "-lm"]


def compile_set(compiler: list[str], name: str, target: Path) -> str:
    """Build one instruction set into ``target``, aside first. Returns "" or what the compiler said."""
    aside = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    files = ["-o", str(aside), str(ROOT / SOURCE)]
    command = [*compiler, *FLAGS, *SETS[name], *files, *platform_flags(compiler)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 0 and aside.exists():
        aside.replace(target)
        return ""
    aside.unlink(missing_ok=True)
    return f"{shlex.join(command)}\n{done.stderr.strip()}"


def compile_all(folder: Path) -> list[Path]:
    """Build every instruction set into ``folder``; what can't be built is left out, but for `baseline`.

    Raises:
        NoCompiler: there is none, or it can't build even `baseline`.
    """
    compilers = [compiler for compiler in (system_compiler(), zig_compiler()) if compiler]
    if not compilers:
        raise NoCompiler(
            "Building Turntable needs a C compiler: $CC, cc, gcc or clang, or the PyPI package ziglang. None "
            "was found; install one (Debian: apt install gcc; macOS: xcode-select --install; anywhere: "
            "pip install ziglang)."
        )
    complaints = []
    for compiler in compilers:
        built = []
        for name in instruction_sets():
            target = folder / f"kernels-{name}.so"
            complaint = compile_set(compiler, name, target)
            if complaint:
                complaints.append(complaint)
                reason = complaint.splitlines()[-1]
                sys.stderr.write(f"splat's kernels for {name} were left out: {reason}\n")
                target.unlink(missing_ok=True)
                if name == "baseline":
                    break
            else:
                built.append(target)
        if built:
            return built
    raise NoCompiler("No C compiler could build splat's kernels; tried:\n" + "\n".join(complaints))


class CustomBuildHook(BuildHookInterface):
    """What hatchling calls."""

    def dependencies(self) -> list[str]:
        """The package with a compiler in it, where the system has none."""
        return [] if system_compiler() else ["ziglang"]

    def initialize(self, version: str, build_data: dict) -> None:
        """Compile, and have the libraries packed. An editable install finds them in the source folder."""
        if self.target_name != "wheel":
            return
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{platform_tag()}"
        for library in compile_all(ROOT / FOLDER):
            build_data["force_include"][str(library)] = f"{INSIDE}/{library.name}"


def platform_tag() -> str:
    """The wheel's platform, as the interpreter that builds it calls its own."""
    if sys.platform == "darwin":
        machine = "x86_64" if target_is_x86_64() else "arm64"
        major, _, minor = os.environ.get("MACOSX_DEPLOYMENT_TARGET", "11.0").partition(".")
        version = f"{major}_{minor or 0}"
        return f"macosx_{version}_{machine}"
    return sysconfig.get_platform().replace("-", "_").replace(".", "_")


if __name__ == "__main__":
    try:
        for made in compile_all(ROOT / FOLDER):
            sys.stdout.write(f"{made.relative_to(ROOT)}\n")
    except NoCompiler as error:
        sys.exit(str(error))
