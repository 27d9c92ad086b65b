"""The compiled kernels, through ctypes: which build fits this processor, and calls that take NumPy arrays.

ctypes lets other Python threads run during a call. Each build of ``kernels/splat.c`` is one library beside
this file, ``kernels-<instruction set>.so``; ``hatch_build.py`` in the repository's root makes them.
"""

from __future__ import annotations

import ctypes
import os
import platform
from pathlib import Path
from typing import Any

import numpy as np

FOLDER = Path(__file__).parent
INSTRUCTION_SETS = ("baseline", "avx2", "avx512")
"""By what ``splat_level()`` calls 0, 1 and 2. On processors other than x86-64 there is only the first."""

ROWS = 59
MEAN, SCALE, QUATERNION, OPACITY, HARMONIC = slice(0, 3), slice(3, 6), slice(6, 10), 10, slice(11, 59)
"""Rows of a model: means (scene units), logarithms of scales, quaternions (w, x, y, z; any length), logit of
the opacity, harmonics (16 coefficients, each for red, green and blue)."""
GROUP, RECORD = 16, 89
"""Gaussians that lie together in memory, and how many numbers each has: see ``kernels/state.h``."""
MOMENTS, FIRST, SECOND, HARMONIC_SECOND = 14, 59, 73, 87
"""Adam's moments: of the first 14 rows each has its own (rows 59 and 73 on), the harmonics above degree 0 share a
second one."""
ACTIVITY = 88
"""Sum since densification last looked: sizes of the mean's gradients times its depth."""
STAGES = ("project", "bin", "forward", "loss", "backward", "update")


class ViewStruct(ctypes.Structure):
    """``view`` of ``kernels/state.h``."""

    _fields_ = [
        ("width", ctypes.c_int32),
        ("height", ctypes.c_int32),
        ("fx", ctypes.c_float),
        ("fy", ctypes.c_float),
        ("cx", ctypes.c_float),
        ("cy", ctypes.c_float),
        ("rotation", ctypes.c_float * 9),
        ("translation", ctypes.c_float * 3),
        ("near", ctypes.c_float),
        ("dilation", ctypes.c_float),
        ("background", ctypes.c_float * 3),
        ("degree", ctypes.c_int32),
        ("filter", ctypes.c_int32),
    ]


class OptimiserStruct(ctypes.Structure):
    """``optimiser`` of ``kernels/update.h``."""

    _fields_ = [
        ("rate", ctypes.c_float * ROWS),
        ("first", ctypes.c_float),
        ("second", ctypes.c_float),
        ("unbias_first", ctypes.c_float),
        ("unbias_second", ctypes.c_float),
        ("epsilon", ctypes.c_float),
        ("opacity_weight", ctypes.c_float),
        ("scale_weight", ctypes.c_float),
        ("noise", ctypes.c_float),
        ("seed", ctypes.c_uint64),
    ]


DILATION = 0.3
"""px², added to the diagonal of each projected covariance, so that nothing is thinner than about a pixel."""


def view_struct(
    camera: Any,
    near: float,
    background: np.ndarray,
    degree: int,
    antialias: bool = False,
    level: int = 0,
    dilation: float = DILATION,
) -> ViewStruct:
    """A camera as the kernels take it.

    Args:
        camera: as the contract has it (pixels, OpenCV axes).
        near: what is nearer than this, in scene units, is not drawn.
        background: ``float32[3]``.
        degree: of the spherical harmonics, 0 to 3.
        antialias: see the setting.
        level: for a photo halved ``level`` times (an odd last row or column is dropped).
        dilation: px², see DILATION.
    """
    view = ViewStruct()
    view.width, view.height = max(camera.width >> level, 1), max(camera.height >> level, 1)
    shrink = 0.5**level
    view.fx, view.fy, view.cx, view.cy = (
        value * shrink for value in (camera.fx, camera.fy, camera.cx, camera.cy)
    )
    view.rotation[:] = np.asarray(camera.R, np.float64).ravel().tolist()
    view.translation[:] = np.asarray(camera.t, np.float64).ravel().tolist()
    view.near, view.dilation = near, dilation
    view.background[:] = np.asarray(background, np.float64).tolist()
    view.degree, view.filter = degree, int(antialias)
    return view


def usable_cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def library_path(instruction_set: str) -> Path:
    """Where the build for an instruction set lies, if it was built."""
    return FOLDER / f"kernels-{instruction_set}.so"


def available() -> list[str]:
    """The instruction sets that were built and that this processor has, slowest first.

    Raises:
        RuntimeError: none was built, so Turntable was not installed by its build hook.
    """
    if not library_path("baseline").exists():
        raise RuntimeError(
            f"The method splat needs its compiled kernels; there is no {library_path('baseline')}. "
            "Install Turntable with pip, or run `python hatch_build.py` in its checkout."
        )
    level = ctypes.CDLL(str(library_path("baseline"))).splat_level()
    return [name for name in INSTRUCTION_SETS[: level + 1] if library_path(name).exists()]


def _pointer(array: np.ndarray | None, dtype: Any) -> Any:
    if array is None:
        return None
    assert array.dtype == dtype and array.flags.c_contiguous, (array.dtype, array.flags)
    return array.ctypes.data


class Kernels:
    """A context of the kernels: threads, scratch memory, and the last rendered image.

    ``records`` below is ``float32[B, 89, 16]``, as :class:`.model.Model` keeps it: ``count`` Gaussians in blocks of
    sixteen.

    Args:
        threads: how many work; results do not depend on it.
        instruction_set: one of :func:`available`, or ``auto``.

    Raises:
        RuntimeError: there is no such build, or this processor can't run it.
    """

    def __init__(self, threads: int = 0, instruction_set: str = "auto") -> None:
        sets = available()
        if instruction_set == "auto":
            instruction_set = sets[-1]
        if instruction_set not in sets:
            raise RuntimeError(
                f"Setting instruction_set is one that was built and that this {platform.machine()} processor "
                f"has ({', '.join(sets)}) or auto, not {instruction_set!r}."
            )
        self.instruction_set = instruction_set
        self.threads = threads or usable_cores()
        self._library = library = ctypes.CDLL(str(library_path(instruction_set)))
        pointer, integer = ctypes.c_void_p, ctypes.c_int64
        library.splat_open.restype = pointer
        library.splat_close.argtypes = [pointer]
        library.splat_forward.argtypes = [pointer, pointer, integer, pointer, ctypes.c_int]
        library.splat_loss.argtypes = [pointer, pointer, pointer, ctypes.c_float, pointer]
        library.splat_update.argtypes = [pointer] * 4
        library.splat_update.restype = None
        library.splat_take.argtypes = [pointer] * 5
        library.splat_set_gradient.argtypes = [pointer] * 2
        library.splat_counts.argtypes = [pointer] * 2
        library.splat_projected.argtypes = [pointer] * 2
        library.splat_seconds.argtypes = [pointer] * 2
        self._context = library.splat_open(self.threads)
        if not self._context:
            raise MemoryError("no memory for the kernels' context")
        self._size = (0, 0)
        self._count = 0

    def __del__(self) -> None:
        if getattr(self, "_context", None):
            self._library.splat_close(self._context)
            self._context = None

    def forward(self, records: np.ndarray, count: int, view: ViewStruct, with_depth: bool = False) -> None:
        """Render into the context.

        Raises:
            MemoryError: the pairs of Gaussians and tiles don't fit.
        """
        assert records.shape[1:] == (RECORD, GROUP) and count <= len(records) * GROUP, (records.shape, count)
        self._size, self._count = (0, 0), 0
        if not self._library.splat_forward(
            self._context, _pointer(records, np.float32), count, ctypes.byref(view), int(with_depth)
        ):
            raise MemoryError(
                f"rendering {count} Gaussians at {view.width}×{view.height} needs more memory than there is"
            )
        self._size, self._count = (view.height, view.width), count

    def loss(self, photo: np.ndarray, mask: np.ndarray | None, ssim_weight: float) -> float:
        """The loss of the rendered image against ``uint8[H, W, 3]``; its gradient stays in the context.

        Args:
            photo: of the size rendered.
            mask: ``uint8[H, W]``, 0 where a pixel does not count, or None.
            ssim_weight: weight of 1 - SSIM; L1 has the rest.

        Raises:
            MemoryError: there is none for intermediate rows.
        """
        assert photo.shape == (*self._size, 3), (photo.shape, self._size)
        assert mask is None or mask.shape == self._size, (
            mask.shape if mask is not None else None,
            self._size,
        )
        value = ctypes.c_double()
        done = self._library.splat_loss(
            self._context,
            _pointer(photo, np.uint8),
            _pointer(mask, np.uint8),
            ssim_weight,
            ctypes.byref(value),
        )
        if not done:
            raise MemoryError(f"no memory for the loss of a photo of {self._size[1]}×{self._size[0]} pixels")
        return value.value

    def update(self, records: np.ndarray, optimiser: OptimiserStruct) -> None:
        """One step of Adam, in place, for every Gaussian that the last rendering of ``records`` showed."""
        assert self._count <= len(records) * GROUP, (self._count, records.shape)
        self._library.splat_update(
            self._context, _pointer(records, np.float32), None, ctypes.byref(optimiser)
        )

    def gradients(self, records: np.ndarray) -> np.ndarray:
        """``float32[59, count]``: the loss's gradient with respect to the model, after :meth:`loss`."""
        assert self._count <= len(records) * GROUP, (self._count, records.shape)
        out = np.zeros((len(records), ROWS, GROUP), np.float32)
        self._library.splat_update(
            self._context, _pointer(records, np.float32), _pointer(out, np.float32), None
        )
        return out.transpose(1, 0, 2).reshape(ROWS, -1)[:, : self._count]

    def set_gradient(self, gradient: np.ndarray) -> None:
        """Put a gradient with respect to the image, ``float32[3, H, W]``, in the place of the loss's."""
        assert gradient.shape == (3, *self._size), gradient.shape
        self._library.splat_set_gradient(self._context, _pointer(gradient, np.float32))

    def image(self) -> np.ndarray:
        """What was rendered last, ``float32[H, W, 3]``."""
        planes = np.empty((3, *self._size), np.float32)
        self._library.splat_take(self._context, _pointer(planes, np.float32), None, None, None)
        return np.ascontiguousarray(planes.transpose(1, 2, 0))

    def image_gradient(self) -> np.ndarray:
        """The last loss's gradient with respect to the image, ``float32[3, H, W]``."""
        planes = np.empty((3, *self._size), np.float32)
        self._library.splat_take(self._context, None, _pointer(planes, np.float32), None, None)
        return planes

    def depth_and_opacity(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean z (0 where nothing is) and opacity, each ``float32[H, W]``, of a rendering with depth."""
        depth, left = np.empty(self._size, np.float32), np.empty(self._size, np.float32)
        self._library.splat_take(
            self._context, None, None, _pointer(depth, np.float32), _pointer(left, np.float32)
        )
        opacity = 1 - left
        return np.divide(depth, opacity, out=np.zeros_like(depth), where=opacity > 1e-6), opacity

    def counts(self) -> tuple[int, int]:
        """Visible Gaussians, and pairs of Gaussian and tile, of the last rendering."""
        counts = np.zeros(2, np.int64)
        self._library.splat_counts(self._context, _pointer(counts, np.int64))
        return int(counts[0]), int(counts[1])

    def projected(self) -> np.ndarray:
        """``float32[count, 11]``: x, y, inverse covariance a, b, c, opacity, red, green, blue, z, drawn (0
        or 1).
        """
        out = np.empty((self._count, 11), np.float32)
        self._library.splat_projected(self._context, _pointer(out, np.float32))
        return out

    def seconds(self) -> dict[str, float]:
        """Seconds spent in each of STAGES since the context was opened."""
        spent = np.zeros(len(STAGES))
        self._library.splat_seconds(self._context, _pointer(spent, np.float64))
        return dict(zip(STAGES, spent.tolist(), strict=True))
