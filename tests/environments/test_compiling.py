"""What comes as CUDA sources in a wheel is compiled once, when an environment is built, and nothing else is touched."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from turntable.environments import compiling, sandbox
from turntable.environments.compile_gsplat import toolkit
from turntable.environments.compiling import Workshop
from turntable.environments.interpreters import Interpreter
from turntable.environments.wheels import Wheel
from turntable.errors import TurntableError

WHEEL = Wheel(Path("curved-1.0-py3-none-any.whl"), "0" * 64)


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    """An environment of this Python with a package ``curved`` in it."""
    venv = tmp_path / "place" / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    (packages,) = venv.glob("lib/python*/site-packages")
    (packages / "curved").mkdir()
    (packages / "curved" / "__init__.py").write_text("")
    interpreter = Interpreter(Path(sys.base_prefix), "{}.{}.{}".format(*sys.version_info[:3]))
    return Workshop(venv, interpreter, tmp_path / "log", from_sources=False)


def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    (path := tmp_path / "script.py").write_text(
        "import sys, pathlib\nout = pathlib.Path(sys.argv[1])\n(out / 'architectures.txt').write_text('8.6+PTX')\n"
        + code
    )
    monkeypatch.setattr(compiling, "SCRIPTS", {"curved": (path, "kernels.so")})


def said_by(workshop: Workshop) -> list[str]:
    said: list[str] = []
    workshop.compile([WHEEL], said.append)
    return said


needs_walls = pytest.mark.skipif(sandbox.why_not() is not None, reason=f"no walls here: {sandbox.why_not()}")


@needs_walls
def test_what_is_compiled_lies_with_its_package_and_only_once(
    workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script(tmp_path, monkeypatch, "import curved\n(out / 'kernels.so').write_text(curved.__file__)\n")
    (said,) = said_by(workshop)
    assert said.startswith("Compiling curved 1.0")
    (made,) = workshop.venv.glob("lib/python*/site-packages/curved/kernels.so")
    assert made.read_text() == str(made.with_name("__init__.py"))
    assert not workshop.venv.with_name("compiled").exists()
    assert said_by(workshop) == [], "it is there already"
    assert workshop.compile([Wheel(Path("other-1.0-py3-none-any.whl"), "0" * 64)], said_by) == {}
    made.unlink()
    assert workshop.compile([WHEEL], lambda text: None) == {"curved": "8.6+PTX"}


@needs_walls
def test_compiling_reaches_nothing_else(
    workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "secret").write_text("secret")
    code = f"""
import os, socket
assert not pathlib.Path({str(tmp_path / "secret")!r}).exists()
assert "SECRET" not in os.environ
try:
    open({str(workshop.venv / "pyvenv.cfg")!r}, "a")
    raise SystemExit("the environment can be written to")
except OSError:
    open({str(tmp_path / "new")!r}, "w")  # in a /tmp of its own
try:
    socket.create_connection(("127.0.0.1", 80), 1)
except OSError as error:
    (out / "kernels.so").write_text(str(error))
"""
    monkeypatch.setenv("SECRET", "1")
    script(tmp_path, monkeypatch, code)
    assert len(said_by(workshop)) == 1, workshop.log.read_text()
    assert not (tmp_path / "new").exists()


def test_what_can_not_be_compiled_is_one_line_and_a_log(
    workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script(tmp_path, monkeypatch, "print('a.cu(3): error: no such thing')\nprint('more')\nsys.exit(1)\n")
    asked = Workshop(workshop.venv, workshop.interpreter, workshop.log, from_sources=True)
    with pytest.raises(
        TurntableError, match=r"curved can't be compiled: a.cu\(3\): error: no such thing"
    ) as caught:
        said_by(asked)
    assert "\n" not in str(caught.value) and "more" in workshop.log.read_text()


def test_without_walls_it_is_only_compiled_when_the_user_asks(
    workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sandbox, "why_not", lambda: "there are none")
    script(tmp_path, monkeypatch, "(out / 'kernels.so').write_text('')\n")
    with pytest.raises(TurntableError, match="runs code of packages with your rights"):
        said_by(workshop)
    asked = Workshop(workshop.venv, workshop.interpreter, workshop.log, from_sources=True)
    assert len(said_by(asked)) == 1


def test_nvidias_wheels_become_a_toolkit_as_linkers_expect_it(tmp_path: Path) -> None:
    root = tmp_path / "site-packages" / "nvidia" / "cu13"
    (tmp_path / "scratch").mkdir()
    assert toolkit(tmp_path / "site-packages", tmp_path / "scratch") is None
    for file in ("bin/nvcc", "include/cuda.h", "nvvm/bin/cicc", "lib/libcudart.so.13", "lib/libcudadevrt.a"):
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_text(file)
    found = toolkit(tmp_path / "site-packages", tmp_path / "scratch")
    assert found is not None
    for name, file in (
        ("bin/nvcc", "bin/nvcc"),
        ("lib64/libcudart.so", "lib/libcudart.so.13"),
        ("lib64/libcudadevrt.a", "lib/libcudadevrt.a"),
        ("nvvm/bin/cicc", "nvvm/bin/cicc"),
    ):
        assert (found / name).read_text() == file
