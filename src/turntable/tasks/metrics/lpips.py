"""LPIPS 0.1 (Zhang, Isola, Efros, Shechtman and Wang, "The Unreasonable Effectiveness of Deep Features as a
Perceptual Metric", 2018), with weights from a local file. Needs torch, which Turntable itself does not.

The file is a torch state dict (``torch.save``) with torchvision's keys of the trunk, ``features.<i>.weight``
and ``features.<i>.bias`` of VGG-16 or AlexNet, and LPIPS 0.1's own keys of the linear heads,
``lin<k>.model.1.weight``. Which net it is, its shapes say. Values of different nets are not comparable, so
the net, the version and the input range are part of the score's name.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import TurntableError
from ...files import sha256_of

_SHIFT = (-0.030, -0.088, -0.188)
_SCALE = (0.458, 0.448, 0.450)
"""ImageNet's mean and deviation for inputs in [−1, 1], as LPIPS 0.1's scaling layer has them."""


@dataclass(frozen=True)
class _Net:
    """A trunk: its layers in torchvision's order, and after which of them features are taken.

    A layer is ``("conv", stride, padding)``, ``("relu",)`` or ``("pool", size, stride)``.
    """

    name: str
    layers: tuple[tuple[Any, ...], ...]
    taps: tuple[int, ...]


def _vgg16() -> _Net:
    layers: list[tuple[Any, ...]] = []
    for convolutions in (2, 2, 3, 3, 3):
        layers += [("conv", 1, 1), ("relu",)] * convolutions
        layers.append(("pool", 2, 2))
    return _Net("vgg", tuple(layers), (3, 8, 15, 22, 29))


_ALEX = _Net(
    "alex",
    (
        ("conv", 4, 2), ("relu",), ("pool", 3, 2), ("conv", 1, 2), ("relu",), ("pool", 3, 2),
        ("conv", 1, 1), ("relu",), ("conv", 1, 1), ("relu",), ("conv", 1, 1), ("relu",),
    ),
    (1, 4, 7, 9, 11),
)  # fmt: skip


@dataclass(frozen=True)
class Network:
    """A trunk with its weights and heads, and the sha256 of the file that they are from."""

    net: _Net
    weights: dict[str, Any]
    digest: str

    @property
    def name(self) -> str:
        """The score's name."""
        return f"lpips-{self.net.name}-0.1[-1,1]"

    @property
    def definition(self) -> str:
        """What is computed, in words."""
        return (
            f"LPIPS 0.1, net {self.net.name}, input scaled to [−1, 1], per view, weights from the local file with "
            f"sha256 {self.digest[:12]}…; lower is better; under a mask both pictures are mid-grey elsewhere and the "
            "sum is divided by the mask's share."
        )


def load(path: Path) -> Network:
    """Read the weights.

    Raises:
        TurntableError: torch can't be imported, or the file is missing or of another layout.
    """
    if not path.is_file():
        raise TurntableError(f"--lpips-weights takes a file of weights; there is none at {path}.")
    try:
        import torch  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise TurntableError(
            "LPIPS needs torch, which can't be imported here; install it (pip install torch) or leave "
            "--lpips-weights out."
        ) from None
    import pickle

    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
        first = (str(error).splitlines() or [""])[0]
        raise TurntableError(f"--lpips-weights takes a torch state dict; {path} is none ({first}).") from None
    if not isinstance(weights, dict) or not all(
        isinstance(value, torch.Tensor) for value in weights.values()
    ):
        raise TurntableError(
            f"--lpips-weights takes a torch state dict of tensors; {path} holds something else."
        )
    kernel = tuple(weights["features.0.weight"].shape[2:]) if "features.0.weight" in weights else None
    nets = {(3, 3): _vgg16(), (11, 11): _ALEX}
    if kernel not in nets:
        raise TurntableError(
            f"--lpips-weights needs the features.<i>.weight of VGG-16 or AlexNet; {path} has neither's first."
        )
    net = nets[kernel]
    convolutions = [i for i, layer in enumerate(net.layers) if layer[0] == "conv"]
    needed = [f"features.{i}.{what}" for i in convolutions for what in ("weight", "bias")]
    needed += [f"lin{k}.model.1.weight" for k in range(len(net.taps))]
    missing = [key for key in needed if key not in weights]
    if missing:
        raise TurntableError(f"--lpips-weights: {path} lacks {', '.join(missing)}.")
    return Network(net, weights, sha256_of(path))


def lpips(
    network: Network, photo: np.ndarray, rendering: np.ndarray, mask: np.ndarray | None = None
) -> float:
    """LPIPS of two ``uint8[H, W, 3]``, under ``bool[H, W]`` where given.

    Raises:
        ValueError: the shapes differ, or the mask counts no pixel.
    """
    if photo.shape != rendering.shape:
        raise ValueError(f"pictures of one shape are compared, not {photo.shape} and {rendering.shape}")
    share = 1.0
    if mask is not None:
        if not mask.any():
            raise ValueError("the mask counts no pixel")
        share = float(mask.mean())
        grey = np.uint8(128)
        photo, rendering = (np.where(mask[..., None], one, grey) for one in (photo, rendering))
    total = 0.0
    pairs = zip(_features(network, photo), _features(network, rendering), strict=True)
    for level, (of_photo, of_rendering) in enumerate(pairs):
        head = network.weights[f"lin{level}.model.1.weight"]
        total += float(((of_photo - of_rendering) ** 2 * head).sum(1).mean())
    return total / share


def _features(network: Network, picture: np.ndarray) -> list[Any]:
    """The unit-length features at each tap, ``float32[1, C, h, w]``."""
    import torch  # pyright: ignore[reportMissingImports]
    from torch.nn import functional  # pyright: ignore[reportMissingImports]

    with torch.no_grad():
        x = torch.from_numpy(picture.astype(np.float32) / np.float32(127.5) - 1).permute(2, 0, 1)[None]
        x = (x - torch.tensor(_SHIFT).view(1, 3, 1, 1)) / torch.tensor(_SCALE).view(1, 3, 1, 1)
        taps = []
        for i, layer in enumerate(network.net.layers):
            if layer[0] == "conv":
                weight, bias = network.weights[f"features.{i}.weight"], network.weights[f"features.{i}.bias"]
                x = functional.conv2d(x, weight, bias, stride=layer[1], padding=layer[2])
            elif layer[0] == "relu":
                x = functional.relu(x)
            else:
                x = functional.max_pool2d(x, layer[1], layer[2])
            if i in network.net.taps:
                taps.append(x / (x.square().sum(1, keepdim=True).sqrt() + 1e-10))
        return taps
