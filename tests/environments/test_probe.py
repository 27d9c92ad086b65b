"""What is compiled against CUDA is refused before an hour is lost, with the reason and the remedy."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from turntable.environments.probe import Graphics, look, not_covered, refusals, torch_cuda
from turntable.environments.recipe import Package


def package(name: str, version: str = "1.0", wheels: tuple[str, ...] = ("x.whl",)) -> Package:
    return Package(name, version, ("00",), wheels)


def torch(version: str, cuda: str) -> list[Package]:
    return [
        package("torch", version),
        package(f"nvidia-cuda-runtime-cu{cuda.partition('.')[0]}", f"{cuda}.127"),
    ]


T24, T26, T213 = torch("2.4.1", "12.1"), torch("2.6.0", "12.4"), torch("2.13.0", "13.0")
TCNN = package("tinycudann", wheels=())
GSPLAT = package("gsplat", "1.5.3", ("gsplat-1.5.3-py3-none-any.whl",))
NVCC13 = package("nvidia-cuda-nvcc", "13.0.88")
GOOD = Graphics((570, 86), (("RTX 4090", (8, 9)),), (12, 4), 12)


@pytest.mark.parametrize(
    ("packages", "machine", "needs_card", "says"),
    [
        ([*T26, TCNN], GOOD, True, []),
        ([*T26, GSPLAT], GOOD, True, []),
        (T26, Graphics(), False, []),
        (T26, Graphics(), True, ["it needs an NVIDIA card"]),
        (T213, Graphics((550, 54), (("A100", (8, 0)),)), True, ["needs driver 580 or newer, and 550.54 is installed"]),
        (T213, Graphics((580, 1), (("Tesla V100", (7, 0)),)), True, ["compute capability 7.0", "7.5 and newer"]),
        (T26, Graphics((580, 1), (("Tesla V100", (7, 0)),)), True, []),
        (T24, Graphics((580, 1), (("RTX 5090", (12, 0)),)), True, ["which CUDA 12.1 of torch 2.4.1 doesn't know"]),
        ([*T26, TCNN], Graphics((570, 86), GOOD.cards, None, 12), True, ["tinycudann must be compiled by nvcc", "12.4"]),
        ([*T26, TCNN], Graphics((570, 86), GOOD.cards, (11, 8), 11), True, ["12.4, and nvcc is of CUDA 11.8"]),
        ([*T26, TCNN], Graphics((570, 86), GOOD.cards, (12, 4), 14), True, ["g++ 13 at most, and g++ is 14"]),
        ([*T26, TCNN], Graphics((570, 86), GOOD.cards, (12, 4), None), True, ["there is no g++"]),
        ([*T26, GSPLAT], Graphics((570, 86), GOOD.cards), True, ["gsplat must be compiled by nvcc"]),
        ([*T26, GSPLAT], Graphics(), False, []),
        ([*T213, GSPLAT, NVCC13], Graphics((580, 1), GOOD.cards, None, 12), True, []),
        ([*T213, GSPLAT, NVCC13], Graphics((580, 1), GOOD.cards, (12, 4), 15), True, []),
        ([*T213, GSPLAT, NVCC13], Graphics((580, 1), GOOD.cards, None, None), True, ["there is no g++"]),
        ([*T213, GSPLAT, NVCC13], Graphics((580, 1), GOOD.cards, None, 16), True, ["g++ 15 at most, and g++ is 16"]),
        ([*T26, GSPLAT, package("nvidia-cuda-nvcc-cu12", "12.4.131")], Graphics((570, 86), GOOD.cards, None, 12), True,
         ["gsplat must be compiled by nvcc"]),
        ([package("tinycudann")], Graphics(), False, []),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_said(
    packages: list[Package], machine: Graphics, needs_card: bool, says: list[str]
) -> None:
    found = refusals(packages, machine, needs_card)
    assert bool(found) == bool(says), found
    for text in says:
        assert text in " ".join(found)
    for line in found:
        assert "\n" not in line and ": " in line, "a remedy follows"


def test_the_cuda_of_a_lock_is_told_by_its_torch() -> None:
    assert torch_cuda(T26) == (12, 4)
    assert torch_cuda([package("torch", "2.5.1+cu118")]) == (11, 8)
    assert torch_cuda([package("torch", "2.5.1+cpu")]) is None
    assert torch_cuda([package("numpy")]) is None


def test_a_machine_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in {
        "nvidia-smi": "570.86.10, 7.0, Tesla V100-SXM2-16GB\n570.86.10, 8.9, NVIDIA RTX, 4090",
        "nvcc": "nvcc: NVIDIA (R) Cuda compiler driver\nCuda compilation tools, release 12.4, V12.4.131",
        "g++": "12",
    }.items():
        (tmp_path / name).write_text(f"#!/bin/sh\ncat <<'EOF'\n{text}\nEOF\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}/usr/bin{os.pathsep}/bin")
    cards = (("Tesla V100-SXM2-16GB", (7, 0)), ("NVIDIA RTX, 4090", (8, 9)))
    assert look() == Graphics((570, 86, 10), cards, (12, 4), 12)


@pytest.mark.parametrize("variable", ["CUDA_HOME", "CUDA_PATH"])
def test_nvcc_is_looked_for_where_torch_looks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    for place, release in (("toolkit/bin", "12.8"), ("path", "11.8")):
        (tmp_path / place).mkdir(parents=True)
        nvcc = tmp_path / place / "nvcc"
        nvcc.write_text(f"#!/bin/sh\necho 'Cuda compilation tools, release {release}, V{release}.1'\n")
        nvcc.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'path'}{os.pathsep}/usr/bin{os.pathsep}/bin")
    for name in ("CUDA_HOME", "CUDA_PATH"):
        monkeypatch.delenv(name, raising=False)
    assert look().nvcc == (11, 8)
    monkeypatch.setenv(variable, str(tmp_path / "toolkit"))
    assert look().nvcc == (12, 8)


@pytest.mark.parametrize(
    ("architectures", "card", "covered"),
    [
        ("8.6", (8, 6), True),
        ("8.0", (8, 6), True),
        ("8.6", (8, 0), False),
        ("8.6", (9, 0), False),
        ("8.6+PTX", (9, 0), True),
        ("9.0+PTX", (8, 9), False),
        ("7.5;8.0 9.0+PTX", (12, 0), True),
    ],
)
def test_what_was_compiled_for_other_cards_is_noticed(
    architectures: str, card: tuple[int, int], covered: bool
) -> None:
    lacking = not_covered(architectures, Graphics(driver=(580,), cards=(("Card", card),)))
    assert lacking == ("" if covered else f"Card ({card[0]}.{card[1]})")
