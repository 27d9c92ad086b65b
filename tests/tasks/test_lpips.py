"""LPIPS: what is said without torch, which files are read, and the paper's definition on random weights."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from turntable.errors import TurntableError
from turntable.tasks.metrics import metrics

WITHOUT_TORCH = "LPIPS needs torch, which is not installed here"


def pair(size: tuple[int, int] = (48, 64)) -> tuple[np.ndarray, np.ndarray]:
    """A picture and the same with noise."""
    draw = np.random.default_rng(3)
    photo = draw.integers(0, 256, (*size, 3))
    return photo.astype(np.uint8), np.clip(photo + draw.normal(0, 25, photo.shape), 0, 255).astype(np.uint8)


def write_weights(path: Path, net: str, channels: int = 4) -> dict[str, Any]:
    """A file of random weights of few channels, of VGG-16's or AlexNet's layout; gives back what it holds."""
    torch = pytest.importorskip("torch", reason=WITHOUT_TORCH)
    draw = torch.Generator().manual_seed(0)
    vgg = dict.fromkeys((0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28), 3)
    kernels = {"vgg": vgg, "alex": {0: 11, 3: 5, 6: 3, 8: 3, 10: 3}}[net]
    weights = {}
    for i, kernel in kernels.items():
        shape = (channels, 3 if i == 0 else channels, kernel, kernel)
        weights[f"features.{i}.weight"] = torch.randn(shape, generator=draw) / kernel
        weights[f"features.{i}.bias"] = torch.randn(channels, generator=draw) / 10
    for level in range(5):
        weights[f"lin{level}.model.1.weight"] = torch.rand((1, channels, 1, 1), generator=draw)
    torch.save(weights, path)
    return weights


def by_definition(weights: dict[str, Any], net: str, photo: np.ndarray, rendering: np.ndarray) -> float:
    """The paper's equation 1 on torch's own layers: Σ_l mean_hw ‖ √w_l ⊙ (ŷ − ŷ₀) ‖²."""
    torch = pytest.importorskip("torch", reason=WITHOUT_TORCH)
    nn = torch.nn
    if net == "vgg":
        plan: list[Any] = []
        for convolutions in (2, 2, 3, 3, 3):
            plan += [nn.Conv2d(4, 4, 3, padding=1), nn.ReLU()] * convolutions + [nn.MaxPool2d(2)]
        plan[0] = nn.Conv2d(3, 4, 3, padding=1)
        ends = [3, 8, 15, 22, 29]
    else:
        plan = [nn.Conv2d(3, 4, 11, stride=4, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2)]
        plan += [nn.Conv2d(4, 4, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2)]
        for _ in range(3):
            plan += [nn.Conv2d(4, 4, 3, padding=1), nn.ReLU()]
        ends = [1, 4, 7, 9, 11]
    total = 0.0
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    inputs = [
        ((torch.from_numpy(one / 255).float() - mean) / deviation).permute(2, 0, 1)[None]
        for one in (photo, rendering)
    ]
    with torch.no_grad():
        for i, layer in enumerate(plan):
            if isinstance(layer, nn.Conv2d):
                layer.weight.copy_(weights[f"features.{i}.weight"])
                layer.bias.copy_(weights[f"features.{i}.bias"])
            inputs = [layer(one) for one in inputs]
            if i in ends:
                head = weights[f"lin{ends.index(i)}.model.1.weight"]
                a, b = (nn.functional.normalize(one, dim=1) for one in inputs)
                total += float(((head.sqrt() * (a - b)) ** 2).sum(1).mean())
    return total


@pytest.mark.parametrize("net", ["vgg", "alex"])
def test_is_the_papers_definition_on_small_random_weights(tmp_path: Path, net: str) -> None:
    weights = write_weights(tmp_path / "weights.pt", net)
    metric = metrics(tmp_path / "weights.pt")[f"lpips-{net}-0.1[-1,1]"]
    photo, rendering = pair()
    expected = by_definition(weights, net, photo, rendering)
    assert expected > 0.01
    # ImageNet's numbers, rounded to three digits on either side of the change of range, differ by 1e-3
    assert metric.compute(photo, rendering, None) == pytest.approx(expected, rel=5e-3)
    assert metric.compute(photo, photo, None) == 0
    assert not metric.higher_is_better


@pytest.mark.parametrize("net", ["vgg", "alex"])
def test_agrees_with_the_authors_package_on_random_weights(tmp_path: Path, net: str) -> None:
    torch = pytest.importorskip("torch", reason=WITHOUT_TORCH)
    package = pytest.importorskip("lpips", reason="the authors' package lpips is not installed")
    torch.manual_seed(0)
    theirs = package.LPIPS(net=net, pretrained=False, pnet_rand=True, verbose=False).eval()
    weights = {}
    for key, value in theirs.state_dict().items():
        if key.startswith("net."):
            weights["features." + key.split(".", 2)[2]] = value
        elif key.startswith("lin") and not key.startswith("lins"):
            weights[key] = value.abs()
            theirs.get_parameter(key).data.abs_()
    torch.save(weights, tmp_path / "weights.pt")
    photo, rendering = pair((64, 64))
    ours = metrics(tmp_path / "weights.pt")[f"lpips-{net}-0.1[-1,1]"].compute(photo, rendering, None)
    tensors = [torch.from_numpy(one / 127.5 - 1).float().permute(2, 0, 1)[None] for one in (photo, rendering)]
    with torch.no_grad():
        assert ours == pytest.approx(float(theirs(*tensors)), rel=1e-4)


def test_pixels_outside_of_the_mask_do_not_matter(tmp_path: Path) -> None:
    write_weights(tmp_path / "weights.pt", "vgg")
    compute = metrics(tmp_path / "weights.pt")["lpips-vgg-0.1[-1,1]"].compute
    photo, rendering = pair()
    mask = np.zeros(photo.shape[:2], bool)
    mask[8:40, 8:40] = True
    ruined = np.where(mask[..., None], rendering, 255 - photo).astype(np.uint8)
    assert compute(photo, rendering, mask) == compute(photo, ruined, mask) > 0
    with pytest.raises(ValueError, match="counts no pixel"):
        compute(photo, rendering, np.zeros_like(mask))


def test_without_weights_there_is_no_lpips() -> None:
    assert list(metrics()) == ["psnr", "ssim", "flip"]


def test_without_torch_one_line_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "weights.pt").write_bytes(b"anything")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(TurntableError, match=r"LPIPS needs torch, .*pip install torch"):
        metrics(tmp_path / "weights.pt")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(TurntableError, match=r"there is none at .*nowhere\.pt"):
        metrics(tmp_path / "nowhere.pt")


@pytest.mark.parametrize("content", [b"", b"not a file of torch", b"PK\x03\x04 cut short"])
def test_a_file_that_is_no_state_dict_is_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    pytest.importorskip("torch", reason=WITHOUT_TORCH)
    (tmp_path / "weights.pt").write_bytes(content)
    with pytest.raises(TurntableError, match="takes a torch state dict") as caught:
        metrics(tmp_path / "weights.pt")
    assert "\n" not in str(caught.value)


def test_another_layout_is_refused_with_what_it_lacks(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason=WITHOUT_TORCH)
    path = tmp_path / "weights.pt"
    torch.save([1, 2], path)
    with pytest.raises(TurntableError, match="holds something else"):
        metrics(path)
    weights = write_weights(path, "vgg")
    torch.save({key: value for key, value in weights.items() if not key.startswith("lin3")}, path)
    with pytest.raises(TurntableError, match=r"lacks lin3\.model\.1\.weight"):
        metrics(path)
    torch.save({"classifier.weight": torch.zeros(3)}, path)
    with pytest.raises(TurntableError, match="VGG-16 or AlexNet"):
        metrics(path)
