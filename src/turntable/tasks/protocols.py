"""What sets the protocol of a published number apart from that of our own scores, in words.

Each function here yields a few words for each difference; what a number doesn't say is unknown, and is a difference too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import PurePath

from ..captures.capture import Capture, CaptureView
from ..methods.facts import Protocol
from .metrics import psnr, ssim

SIZE_TOLERANCE_PX = 1.0
"""Halving an odd side is rounded up by some and down by others."""


def differences(
    protocol: Protocol, capture: Capture, scene: str, metric: str, definition: str
) -> Iterable[str]:
    """What sets a published number's protocol apart from that of our scores on a capture.

    Args:
        protocol: of the published number.
        capture: what ours were scored on.
        scene: of the data set, that the capture is of.
        metric: as our scores call it.
        definition: as stored with our scores.
    """
    if protocol.task is None:
        yield "what was asked for (which task) isn't said"
    elif protocol.task != "views":
        yield f"task {protocol.task}, ours is views"
    yield from _split(protocol, capture)
    yield from _background(protocol, capture)
    yield from _size(protocol, capture, scene)
    yield from _comparison(protocol, metric, definition)
    if any(view.mask_path is not None for view in capture.held_out):
        yield "ours is scored under masks"


def _split(protocol: Protocol, capture: Capture) -> Iterable[str]:
    count = len(capture.held_out)
    if protocol.views is not None and protocol.views != count:
        yield f"{protocol.views} held-out views, ours are {count}"
    if protocol.training is not None and protocol.training != len(capture.training):
        yield f"{protocol.training} training views, ours are {len(capture.training)}"
    names = sorted(view.name for view in capture.views)
    held_out = {view.name for view in capture.held_out}
    if protocol.split is None:
        yield "how views were held out isn't said"
    elif protocol.split == "own" and not _has_test_views(capture):
        yield "the data set's own test views, ours are others"
    elif protocol.split == "every 8th" and held_out != set(names[::8]):
        yield "every 8th view held out, ours are others"
    if capture.left_out:
        yield f"all photos of the data set, ours left out {len(capture.left_out)}"


def _has_test_views(capture: Capture) -> bool:
    """Whether what is held out is what lies in the data set's folder ``test``, and nothing else does."""
    return all(view.held_out == (PurePath(view.name).parts[0] == "test") for view in capture.views)


_COLOURS = {"white": (1.0, 1.0, 1.0), "black": (0.0, 0.0, 0.0)}


def _background(protocol: Protocol, capture: Capture) -> Iterable[str]:
    theirs = protocol.background
    names = {colour: name for name, colour in _COLOURS.items()}
    colour = "#" + "".join(f"{round(channel * 255):02x}" for channel in capture.background)
    mine = names.get(capture.background, colour) if capture.has_alpha else None
    if theirs is None:
        if mine is not None:
            yield f"which background isn't said, ours is {mine}"
    elif theirs == "none":
        if mine is not None:
            yield f"photos without alpha, ours had some and are on {mine}"
    elif mine is None:
        yield f"{theirs} background, our photos had no alpha to put on it"
    elif mine != theirs:
        yield f"{theirs} background, ours is {mine}"


def _size(protocol: Protocol, capture: Capture, scene: str) -> Iterable[str]:
    sizes = sorted({(view.camera.width, view.camera.height) for view in capture.held_out})
    mine = ", ".join(f"{width}×{height}" for width, height in sizes[:3])
    if protocol.size is not None:
        if sizes != [protocol.size]:
            yield f"{protocol.size[0]}×{protocol.size[1]} pixels, ours {mine}"
        elif any(_resized(view) for view in capture.held_out):
            yield "ours are resized by Turntable"
        return
    factor = protocol.factors.get(scene)
    if factor is None:
        yield f"at which size isn't said, ours is {mine}"
        return
    if not all(_is_smaller_by(view, factor) for view in capture.held_out):
        yield f"{factor:g} times smaller than the photos, ours is not ({mine})"
    if protocol.resized_by_authors is None:
        yield "who made the smaller pictures isn't said"
    elif protocol.resized_by_authors:
        yield "resized by the authors"
    elif any(_resized(view) or _own_factor(view) == 1 != factor for view in capture.held_out):
        yield "the data set's own smaller pictures, ours are resized by Turntable"


def _resized(view: CaptureView) -> bool:
    origin = view.origin
    return (origin["width"], origin["height"]) != (view.camera.width, view.camera.height)


def _own_factor(view: CaptureView) -> int:
    """How many times smaller a photo is by the folder that the data set keeps it in: 4 in ``images_4``."""
    match = re.fullmatch(r"images_(\d+)", PurePath(view.origin["path"]).parent.name)
    return int(match[1]) if match else 1


def _is_smaller_by(view: CaptureView, factor: float) -> bool:
    still = factor / _own_factor(view)
    sides = ((view.origin["width"], view.camera.width), (view.origin["height"], view.camera.height))
    return all(abs(photo / still - mine) <= SIZE_TOLERANCE_PX for photo, mine in sides)


def _comparison(protocol: Protocol, metric: str, definition: str) -> Iterable[str]:
    """What sets apart how pictures were compared: 8-bit or not, and what the metric is exactly."""
    if protocol.pictures is None:
        yield "whether 8-bit pictures were compared isn't said; ours are"
    elif protocol.pictures != "8-bit":
        yield "compared as floats, ours as 8-bit pictures"
    present = {"psnr": psnr.DEFINITION, "ssim": ssim.DEFINITION}
    if metric in present and definition != present[metric]:
        yield f"our {metric} is of another definition than this Turntable's"
    if metric == "ssim":
        if protocol.ssim is None:
            yield "what SSIM does at the edges isn't said; ours takes the valid region"
        elif protocol.ssim != "valid":
            yield f"SSIM {protocol.ssim}; ours: valid region"
    if metric.startswith("lpips-"):
        mine = metric.removeprefix("lpips-").replace("-0.1", "", 1)
        if protocol.lpips is None:
            yield f"LPIPS's net and input range aren't said; ours: {mine}"
        elif protocol.lpips != mine:
            yield f"LPIPS {protocol.lpips}; ours: {mine}"
        else:
            yield "LPIPS's weights: ours are of a local file, and nobody has checked that they are the same"
    if metric == "flip":
        yield "how ꟻLIP was computed isn't said"
