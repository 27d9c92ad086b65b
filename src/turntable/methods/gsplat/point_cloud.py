"""Writing the Gaussians for other programs: ``point_cloud.ply`` in the layout of 3DGS's own code."""

from __future__ import annotations

import numpy as np

THIN = np.float32(np.log(1e-3))
"""A disc has no thickness; in a file of ellipsoids it gets a thousandth of its shorter axis."""


def ply(arrays: dict[str, np.ndarray], frame_centre: np.ndarray, frame_unit: float, flat: bool) -> bytes:
    """Gaussians in the capture's units and axes; those that are not finite are left out.

    Order: x y z, nx ny nz (zeros), f_dc_0..2, f_rest_0..44 (all of red, then green, then blue), opacity
    (logit), scale_0..2 (logarithms), rot_0..3 (w x y z, normalised).

    Args:
        arrays: gsplat's parameters by name, in the frame.
        frame_centre, frame_unit: x_world = unit x_frame + centre.
        flat: whether they are discs, which have no third scale.
    """
    means = arrays["means"].astype(np.float64) * frame_unit + frame_centre
    scales = arrays["scales"] + np.float32(np.log(frame_unit))
    if flat:
        scales = np.concatenate([scales[:, :2], scales[:, :2].min(1, keepdims=True) + THIN], 1)
    quats = arrays["quats"] / np.maximum(np.linalg.norm(arrays["quats"], axis=1, keepdims=True), 1e-12)
    rest = arrays["shN"].transpose(0, 2, 1).reshape(len(means), 45)
    parts = [
        means,
        np.zeros_like(means),
        arrays["sh0"][:, 0],
        rest,
        arrays["opacities"][:, None],
        scales,
        quats,
    ]
    table = np.concatenate(parts, 1).astype("<f4")
    table = table[np.isfinite(table).all(1)]
    names = ["x", "y", "z", "nx", "ny", "nz", *(f"f_dc_{i}" for i in range(3))]
    names += [*(f"f_rest_{i}" for i in range(45)), "opacity"]
    names += [*(f"scale_{i}" for i in range(3)), *(f"rot_{i}" for i in range(4))]
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(table)}"]
    header += [*(f"property float {name}" for name in names), "end_header", ""]
    return "\n".join(header).encode("ascii") + table.tobytes()
