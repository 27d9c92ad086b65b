"""Under the compilers' sanitizers, hostile input makes the kernels of `splat` neither read or write what isn't
theirs, nor do what C leaves undefined, nor race, nor break the promises that splat_fuzz.c checks.

splat_fuzz.c and the kernels are one program, built here once for each sanitizer and instruction set and run from
several seeds. A failure's message is the report: it has the seed and the round, so
``splat_fuzz SEED ROUNDS MANY`` under a debugger finds it again.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import shlex
import shutil
import subprocess
from pathlib import Path
from types import ModuleType

import pytest

from turntable.methods.splat import kernels

ROOT = Path(__file__).resolve().parents[2]
FUZZ = Path(__file__).with_name("splat_fuzz.c")

Finished = subprocess.CompletedProcess[str]

SANITIZERS = {
    # GCC and Clang both leave casts of floats that don't fit out of `undefined`
    "address": shlex.split("-fsanitize=address,undefined,float-cast-overflow -fno-sanitize-recover=all"),
    "thread": ["-fsanitize=thread"],
}
RUNS = {
    # seed, rounds, and how many Gaussians lie on one pixel; the thread sanitizer is ten times as slow
    "address": [(1, 80, 2_000_000), (2, 80, 2_000), (3, 80, 2_000)],
    "thread": [(4, 40, 5_000), (5, 40, 2_000)],
}
BUILDS = [
    *(("system", sanitizer, name) for sanitizer in SANITIZERS for name in kernels.available()),
    ("clang", "address", "baseline"),  # it knows more kinds of undefined behaviour than GCC
]

HARMLESS = "int main(void) { return 0; }"
FAULTS = [
    ("address", "heap-buffer-overflow", "char *p = calloc((size_t)n, 16); return p[16 * n + n - 1];"),
    ("address", "heap-use-after-free", "char *p = calloc(16, 1); free(p); return p[n];"),
    ("address", "outside the range of representable values", "return (int)(n * 1e30f) == 5;"),
    ("address", "signed integer overflow", "return 2147483647 + n == 5;"),
    ("address", "null pointer passed", "memcpy(n > 1 ? &n : NULL, &n, (size_t)n - 1);"),
    (
        "thread",
        "data race",
        "pthread_t t; pthread_create(&t, NULL, add, &n); add(&n); pthread_join(t, NULL);",
    ),
]
FAULTY = """
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
void *add(void *to) {{ ++*(int *)to; return NULL; }}
int main(int n, char **unused) {{ (void)unused; {body} return 0; }}
"""


class NoRuntime(Exception):
    """A program built with a sanitizer can't be linked or can't start on this machine; the message says why."""


@functools.cache
def hatch_build() -> ModuleType:
    """The build hook, whose flags the kernels are built with."""
    spec = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def compiler_of(choice: str) -> list[str]:
    if choice == "clang":
        if shutil.which("clang") is None:
            pytest.skip("no clang on this machine (apt install clang)")
        return ["clang"]
    compiler = hatch_build().system_compiler()
    if compiler is None:
        pytest.skip("no C compiler on this machine: neither $CC, cc, gcc nor clang (apt install gcc)")
    return compiler


def build(compiler: list[str], source: Path, program: Path, flags: list[str]) -> Finished:
    hook = hatch_build()
    shared = [flag for flag in hook.FLAGS if flag not in ("-O3", "-shared")]
    # line numbers are all that reports want; noting variables as well takes half of the compiler's time
    command = [*compiler, *shared, "-O1", "-g1", *flags, f"-I{(ROOT / hook.SOURCE).parent}", str(source)]
    command += ["-o", str(program), *hook.platform_flags(compiler)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def run(command: list[str]) -> Finished:
    environment = {name: value for name, value in os.environ.items() if not name.endswith("SAN_OPTIONS")}
    environment |= {"UBSAN_OPTIONS": "print_stacktrace=1", "TSAN_OPTIONS": "halt_on_error=1"}
    return subprocess.run(
        command, capture_output=True, text=True, errors="replace", check=False, env=environment, timeout=300
    )


def start_of(compiler: list[str], sanitizer: str, folder: Path) -> list[str]:
    """What a command has to start with so that a program built with the sanitizer runs: mostly nothing.

    Where Linux scatters memory widely, the thread sanitizers of 2022 run only without that (``setarch -R``).

    Raises:
        NoRuntime: even a harmless program can't be built or run.
    """
    source, program = folder / "harmless.c", folder / "harmless"
    source.write_text(HARMLESS)
    done = build(compiler, source, program, SANITIZERS[sanitizer])
    if done.returncode == 0:
        for start in ([], ["setarch", "-R"]):
            if start and shutil.which(start[0]) is None:
                continue
            done = run([*start, str(program)])
            if done.returncode == 0:
                return start
    raise NoRuntime(
        f"{shlex.join(compiler)} has no {sanitizer} sanitizer that works on this machine "
        f"(Debian has them in libgcc-*-dev and libclang-rt-*-dev): {done.stderr.strip()}"
    )


def start_or_skip(compiler: list[str], sanitizer: str, folder: Path) -> list[str]:
    try:
        return start_of(compiler, sanitizer, folder)
    except NoRuntime as error:
        pytest.skip(str(error))


@pytest.mark.parametrize(("choice", "sanitizer", "name"), BUILDS, ids=["-".join(build) for build in BUILDS])
def test_hostile_input_breaks_no_promise_under_a_sanitizer(choice, sanitizer, name, tmp_path):
    compiler = compiler_of(choice)
    start = start_or_skip(compiler, sanitizer, tmp_path)
    program = tmp_path / "splat_fuzz"
    done = build(compiler, FUZZ, program, [*SANITIZERS[sanitizer], *hatch_build().SETS[name]])
    assert done.returncode == 0, done.stderr
    for seed, rounds, many in RUNS[sanitizer]:
        # millions on one pixel take half a minute: once, under the widest vectors that gcc's sanitizers run
        crowd = many if (choice, name) == ("system", kernels.available()[-1]) else min(many, 200_000)
        numbers = (seed, rounds, crowd)
        command = [str(program), *map(str, numbers)]
        done = run([*start, *command])
        assert done.returncode == 0, f"{shlex.join(command)} ended with {done.returncode}:\n{done.stderr}"
        assert f"{numbers[1]} rounds" in done.stdout


@pytest.mark.parametrize(("sanitizer", "report", "body"), FAULTS, ids=[report for _, report, _ in FAULTS])
def test_the_sanitizers_are_built_so_that_they_see(sanitizer, report, body, tmp_path):
    compiler = compiler_of("system")
    start = start_or_skip(compiler, sanitizer, tmp_path)
    source, program = tmp_path / "faulty.c", tmp_path / "faulty"
    source.write_text(FAULTY.format(body=body))
    done = build(compiler, source, program, SANITIZERS[sanitizer])
    assert done.returncode == 0, done.stderr
    done = run([*start, str(program)])
    assert done.returncode != 0 and report in done.stderr, done.stderr


@pytest.mark.skipif(shutil.which("gcc") is None, reason="no gcc on this machine, so nothing is promised")
@pytest.mark.parametrize("sanitizer", SANITIZERS)
def test_where_gcc_is_there_no_sanitizer_is_skipped(sanitizer, tmp_path):
    assert hatch_build().system_compiler() is not None
    start_of(["gcc"], sanitizer, tmp_path)
