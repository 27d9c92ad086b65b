"""The method ``poisson``: features, points, a surface by COLMAP's own code; colours from the nearest photos.

The work is a list of units: each photo's features, blocks of pairs of photos, points, meshes. A step does one or some of
them (:mod:`.pace`), and the method has finished when none is left. Nothing is random but what COLMAP seeds itself.
"""

# pyright: reportMissingImports=false

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from . import cloud, features, mesh, normals, pace, tracks
from .blend import sample
from .rays import Surface
from .show import Painter, Rendering

BLOCK_PAIRS = 8
"""Pairs of photos that are matched in one unit of work."""

MAX_TURN = 1.2
"""Radians between two views' directions, beyond which SIFT matches hardly anything."""

PHASES = ("photos", "pairs", "points", "draft", "draft", "mesh", "done")
"""A draft is a mesh that shows which points are wrong. Of fox (320 px) the first scores 23.4 dB, the second 25.3, the
third 27.2."""


class Poisson:
    """Takes the training photos, one after the other, to a mesh."""

    def __init__(self, views: Any, settings: dict[str, Any], seed: int, device: str) -> None:
        self._views = views
        self._cameras = [view.camera for view in views]
        self._settings = settings
        self._seed = seed
        self._fraction: float | None = None
        self._steps = 0
        self._phase = 0
        self._features: dict[int, features.Features] = {}
        self._matches: dict[tuple[int, int], np.ndarray] = {}
        self._pairs = near_pairs(self._cameras, settings["neighbours"])
        self._error = 0.0
        towards = normals.towards_most_probable_camera(views.points, self._cameras)
        none = np.zeros(0, np.int64)
        self._cloud = cloud.laid(views.points, towards, views.point_colours, none, none)
        self._set_mesh(mesh.EMPTY)
        self._painter = Painter(views, settings["blended"])

    def _set_mesh(self, made: mesh.Mesh) -> None:
        self._mesh = made
        self._surface = Surface(made)

    @property
    def finished(self) -> bool:
        """Whether there is nothing left to do."""
        return PHASES[self._phase] == "done"

    def progress(self, fraction: float) -> None:
        """Told which share of the budget is used, so that the mesh is made before it ends."""
        self._fraction = fraction

    def step(self) -> dict[str, float]:
        """One photo, a block of pairs, the points or the mesh; more of them where the budget has few steps.

        Returns:
            ``loss``: the share of photos and pairs still to be done; once there are points, their mean reprojection
            error in pixels, or 1 where none was found.
        """
        last = pace.is_last(self._fraction, self._steps)
        self._do_some()
        while last and not self.finished:
            self._do_some(everything=True)
        self._steps += 1
        every = len(self._views) + len(self._pairs)
        left = every - len(self._features) - len(self._matches)
        return {
            "loss": self._error if self._phase > PHASES.index("points") else left / every,
            "points": len(self._cloud.points),
            "triangles": len(self._mesh.faces),
        }

    def _do_some(self, everything: bool = False) -> None:
        """Do this step's share of the phase at hand; phases that have nothing to do are passed over."""
        phase = PHASES[self._phase]
        if phase in ("photos", "pairs"):
            todo = self._photos_left() if phase == "photos" else self._pairs_left()
            block = 1 if phase == "photos" else BLOCK_PAIRS
            count = -(-len(todo) // block)
            if not everything:
                count = pace.units(count, self._phase, self._fraction, self._steps)
            for one in todo[: count * block]:
                self._do(one)
            if count == 0 or count * block >= len(todo):
                self._phase += 1
            if count == 0:
                self._do_some(everything)
        elif phase == "points":
            self._triangulate()
            self._phase += 1
        elif phase in ("draft", "mesh"):
            blames = self._reconstruct()
            if phase == "draft":
                self._cloud = cloud.without_blamed(self._cloud, blames)
            self._phase += 1

    def _photos_left(self) -> list[int]:
        return [index for index in range(len(self._views)) if index not in self._features]

    def _pairs_left(self) -> list[tuple[int, int]]:
        return [
            pair
            for pair in self._pairs
            if pair not in self._matches and pair[0] in self._features and pair[1] in self._features
        ]

    def _do(self, one: int | tuple[int, int]) -> None:
        """Find a photo's features, or a pair's matches."""
        if isinstance(one, int):
            view = self._views[one]
            most, peak = self._settings["features"], self._settings["peak_threshold"]
            self._features[one] = features.detect(view.image_u8, view.mask, most, peak)
        else:
            first, second = one
            both = self._cameras[first], self._cameras[second]
            self._matches[one] = features.match(self._features[first], self._features[second], both)

    def _triangulate(self) -> None:
        """Points from the matches, joined with the capture's own; matches and features aren't needed any more then."""
        places = {index: found.places for index, found in self._features.items()}
        found = tracks.triangulate(self._cameras, places, self._matches, self._seed)
        self._error = float(found.errors.mean()) if len(found.points) else 1.0
        centres = np.stack([camera.centre for camera in self._cameras])
        own = normals.towards_cameras(found.points, found.seen_points, found.seen_views, centres)
        new = cloud.news(self._views.points, found.points)
        given = normals.towards_most_probable_camera(self._views.points[new], self._cameras)
        self._cloud = cloud.laid(
            np.concatenate([found.points, self._views.points[new]]),
            np.concatenate([own, given]),
            np.concatenate([self._seen_colours(found), self._views.point_colours[new]]),
            found.seen_points,
            found.seen_views,
        )
        self._features, self._matches = {}, {}

    def _seen_colours(self, found: tracks.Tracks) -> np.ndarray:
        """The mean colour of each point in the photos that it was found in, ``uint8[P, 3]``."""
        sums, counts = (
            np.zeros((len(found.points), 3)),
            np.bincount(found.seen_points, minlength=len(found.points)),
        )
        for index in np.unique(found.seen_views):
            rows = found.seen_points[found.seen_views == index]
            pixels = self._cameras[index].project(found.points[rows])[0]
            np.add.at(sums, rows, sample(self._views[index].image_u8, pixels))
        return np.rint(255 * sums / np.maximum(counts, 1)[:, None]).astype(np.uint8)

    def _reconstruct(self) -> np.ndarray:
        """Make the mesh; how often each point was blamed for what stood in the way, ``int64[P]``."""
        points = self._cloud
        depth = self._settings["octree_depth"] or mesh.octree_depth(points.points, points.spacings)
        weight = self._settings["point_weight"]
        made = mesh.reconstruct(points.points, points.normals, points.colours, depth, weight)
        peeled = cloud.peeled(cloud.trimmed(made, points, self._settings["trim"]), points, self._cameras)
        self._set_mesh(peeled.mesh)
        return peeled.blames

    def render(self, camera: Any) -> Rendering:
        """The mesh in the colours of the photos; before there is one, the photos at the depths of the points."""
        return self._painter.paint(camera, self._surface, self._cloud.points)

    def save(self, folder: Path) -> None:
        """Everything that was found so far."""
        state = {"steps": self._steps, "phase": self._phase, "error": self._error}
        (folder / "state.json").write_text(json.dumps(state))
        arrays = {f"cloud {name}": array for name, array in self._cloud._asdict().items()}
        arrays.update({f"mesh {name}": array for name, array in self._mesh._asdict().items()})
        for index, found in self._features.items():
            arrays.update({f"feature {name} {index}": array for name, array in found._asdict().items()})
        arrays.update({f"match {first} {second}": rows for (first, second), rows in self._matches.items()})
        np.savez(folder / "arrays.npz", **arrays)

    def load(self, folder: Path) -> None:
        """What :meth:`save` wrote."""
        state = json.loads((folder / "state.json").read_text())
        self._steps, self._phase, self._error = state["steps"], state["phase"], state["error"]
        with np.load(folder / "arrays.npz") as arrays:
            self._cloud = cloud.Cloud(*(arrays[f"cloud {name}"] for name in cloud.Cloud._fields))
            self._set_mesh(mesh.Mesh(*(arrays[f"mesh {name}"] for name in mesh.Mesh._fields)))
            parts = [name.split() for name in arrays.files]
            self._features = {
                int(words[2]): features.Features(
                    *(arrays[f"feature {name} {words[2]}"] for name in features.Features._fields)
                )
                for words in parts
                if words[:2] == ["feature", "places"]
            }
            self._matches = {
                (int(words[1]), int(words[2])): arrays[" ".join(words)]
                for words in parts
                if words[0] == "match"
            }

    def export(self, folder: Path) -> None:
        """``mesh.ply``, with a colour for each vertex, if there is a mesh; and ``points.ply``, with normals."""
        if len(self._mesh.faces):
            mesh.write_mesh(folder / "mesh.ply", self._mesh)
        points = self._cloud
        mesh.write_points(folder / "points.ply", points.points, points.normals, points.colours)


def near_pairs(cameras: list[Any], neighbours: int) -> list[tuple[int, int]]:
    """Which views are matched: each with those whose cameras stand nearest and look the same way; the nearest first.

    How far apart two are is the angle between their directions, in radians, plus the distance between their places, in
    units of the places' mean distance from their middle.
    """
    directions = np.stack([camera.forward for camera in cameras])
    places = np.stack([camera.centre for camera in cameras])
    spread = np.linalg.norm(places - places.mean(0), axis=1).mean()
    turns = np.arccos(np.clip(directions @ directions.T, -1, 1))
    apart = turns + np.linalg.norm(places[:, None] - places, axis=2) / (spread or 1.0)
    apart[turns > MAX_TURN] = np.inf
    np.fill_diagonal(apart, np.inf)
    order = np.argsort(apart, axis=1, kind="stable")[:, :neighbours]
    pairs = [
        (min(first, int(row[rank])), max(first, int(row[rank])))
        for rank in range(order.shape[1])
        for first, row in enumerate(order)
        if np.isfinite(apart[first, row[rank]])
    ]
    return list(dict.fromkeys(pairs))
