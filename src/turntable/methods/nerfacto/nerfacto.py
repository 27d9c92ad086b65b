"""nerfstudio's nerfacto (Tancik et al. 2023, arXiv 2302.04264), trained as nerfstudio trains it.

The model, its losses, its samplers and its schedules are nerfstudio's; what is here is what its ``Trainer`` and its
``DataManager`` would do: choosing rays, Adam's steps, saving. tiny-cuda-nn isn't used (``implementation="torch"``): it
has to be compiled on the machine for the one card in it.

nerfstudio's world has cameras in a box of ±1 around the origin, with z up; its cameras look along -z (OpenGL). A point of
the capture's world is ``scale * (orient @ x) + shift`` in it.
"""
# pyright: reportMissingImports=false
# (nerfstudio and torch are in the method's environment, not in Turntable's)

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from nerfstudio.cameras.camera_optimizers import CameraOptimizerConfig
from nerfstudio.cameras.camera_utils import auto_orient_and_center_poses
from nerfstudio.cameras.cameras import Cameras, CameraType
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.data.scene_box import SceneBox
from nerfstudio.engine.callbacks import TrainingCallbackAttributes, TrainingCallbackLocation
from nerfstudio.models.nerfacto import NerfactoModelConfig

from .pixels import Pixels
from .state import load_tensors, save_tensors

LAST_RATE, DECAY_STEPS = 0.01, 200_000
"""Step sizes fall exponentially to this share of the first in so many steps (nerfstudio 1.1.5, method_configs.py)."""
CAMERA_RATE, CAMERA_LAST_RATE, CAMERA_DECAY_STEPS = 1e-3, 0.1, 5_000
"""The same for the corrections of cameras."""
SAMPLER = ("_anneal", "_steps_since_update", "_step")
"""What nerfstudio's sampler knows of how far training is, and its state_dict leaves out."""
OPENGL = np.diag([1.0, -1.0, -1.0])


class Rendering(NamedTuple):
    """``image`` float32[H, W, 3]; ``depth`` float32[H, W], z in the capture's units, where half of the light of a ray is
    from; ``opacity`` float32[H, W].
    """

    image: np.ndarray
    depth: np.ndarray
    opacity: np.ndarray


class Nerfacto:
    """See the module, and ``method.toml`` for the settings.

    Args:
        views: the training views, as the contract has them.
        settings: all of ``method.toml``'s, by name.
        seed: of everything that chance decides. On a card, sums are made in no fixed order, and seeds repeat to within that.
        device: ``cpu`` or a CUDA device.
    """

    def __init__(self, views: Any, settings: dict[str, Any], seed: int, device: str) -> None:
        if not len(views):
            raise ValueError("nerfacto needs at least one training photo; the capture has none")
        torch.manual_seed(seed)
        self._device = torch.device(device)
        if self._device.type == "cpu":
            # Else gradients of the hash table are added by several threads, in whatever order they come.
            torch.use_deterministic_algorithms(True, warn_only=True)
        self._generator = np.random.default_rng(seed)
        self._settings = settings
        self._pixels = Pixels(views)
        self._set_frame([view.camera for view in views])
        self._cameras = self._to_nerfstudio([view.camera for view in views]).to(self._device)
        self._model = self._make_model(len(views))
        if views.has_alpha:
            self._model.renderer_rgb.background_color = torch.from_numpy(views.background).to(self._device)
        self._callbacks = self._model.get_training_callbacks(
            TrainingCallbackAttributes(optimizers=None, grad_scaler=None, pipeline=None, trainer=None)
        )
        self._optimizers = self._make_optimizers()
        self._scaler = torch.amp.GradScaler(self._device.type, enabled=self._mixed)
        self._steps = 0

    @property
    def _mixed(self) -> bool:
        return self._device.type == "cuda"

    @property
    def finished(self) -> bool:
        """Whether all of ``iterations`` were made."""
        return self._steps >= self._settings["iterations"]

    def _set_frame(self, cameras: list[Any]) -> None:
        """Find nerfstudio's world: z is the photos' mean up, the origin their mean place, ±1 the farthest coordinate."""
        poses = np.stack([_pose(camera) for camera in cameras])
        middle = poses[:, :3, 3].mean(0)
        poses[:, :3, 3] -= middle  # in float64: a capture's world may be a country's
        up = poses[:, :3, 1].mean(0)
        # Photos that look every way up have no common up, and nerfstudio would divide by its length.
        method = "up" if np.linalg.norm(up) > 1e-3 else "none"
        oriented, turn = auto_orient_and_center_poses(
            torch.from_numpy(poses.astype(np.float32)), method=method, center_method="none"
        )
        largest = float(oriented[:, :3, 3].abs().max())
        self._scale = 1.0 / largest if largest > 1e-9 else 1.0
        self._orient = turn[:, :3].double().numpy()
        self._shift = -self._scale * self._orient @ middle

    def _to_nerfstudio(self, cameras: list[Any]) -> Cameras:
        poses = np.stack([_pose(camera) for camera in cameras])[:, :3]
        poses[:, :, :3] = self._orient @ poses[:, :, :3]
        poses[:, :, 3] = self._scale * poses[:, :, 3] @ self._orient.T + self._shift

        def column(name: str, kind: Any) -> torch.Tensor:
            return torch.tensor([[getattr(camera, name)] for camera in cameras], dtype=kind)

        return Cameras(
            camera_to_worlds=torch.from_numpy(poses.astype(np.float32)),
            **{name: column(name, torch.float32) for name in ("fx", "fy", "cx", "cy")},
            **{name: column(name, torch.int64) for name in ("width", "height")},
            camera_type=CameraType.PERSPECTIVE,
        )

    def _make_model(self, photos: int) -> Any:
        config = NerfactoModelConfig(
            implementation="torch",
            average_init_density=0.01,  # of nerfstudio's own configuration of the method "nerfacto"
            eval_num_rays_per_chunk=self._settings["rays_per_chunk"],
            log2_hashmap_size=self._settings["log2_hashmap_size"],
            camera_optimizer=CameraOptimizerConfig(mode=self._settings["camera_optimizer"]),
        )
        config.num_proposal_samples_per_ray = tuple(map(self._samples, config.num_proposal_samples_per_ray))
        config.num_nerf_samples_per_ray = self._samples(config.num_nerf_samples_per_ray)
        box = SceneBox(aabb=torch.tensor([[-1.0, -1.0, -1.0], [1.0, 1.0, 1.0]]))
        with _without_lpips():
            model = config.setup(
                scene_box=box, num_train_data=photos, metadata={}, device=self._device, grad_scaler=None
            )
        return model.to(self._device)

    def _samples(self, count: int) -> int:
        """So many samples of a ray as the setting leaves of nerfstudio's ``count``."""
        return max(2, round(count * self._settings["sampling"]))

    def _make_optimizers(self) -> dict[str, tuple[torch.optim.Optimizer, Any]]:
        found = {}
        for name, parameters in self._model.get_param_groups().items():
            if name == "camera_opt":
                rate, last, steps = CAMERA_RATE, CAMERA_LAST_RATE, CAMERA_DECAY_STEPS
            else:
                rate, last, steps = self._settings["learning_rate"], LAST_RATE, DECAY_STEPS
            optimizer = torch.optim.Adam(parameters, lr=rate, eps=1e-15)
            schedule = torch.optim.lr_scheduler.LambdaLR(
                optimizer, lambda step, last=last, steps=steps: last ** min(step / steps, 1.0)
            )
            found[name] = (optimizer, schedule)
        return found

    def step(self) -> dict[str, float]:
        """One batch of rays from all photos; ``loss`` is all that is minimised, ``psnr`` of the batch in dB."""
        for callback in self._callbacks:
            callback.run_callback_at_location(
                self._steps, location=TrainingCallbackLocation.BEFORE_TRAIN_ITERATION
            )
        photos, rows, columns, colours = self._pixels.sample(
            self._generator, self._settings["rays_per_batch"]
        )
        rays = self._rays(photos, rows, columns)
        batch = {"image": torch.from_numpy(colours).to(self._device)}
        for optimizer, _ in self._optimizers.values():
            optimizer.zero_grad()
        self._model.train()
        with torch.autocast(self._device.type, enabled=self._mixed):
            outputs = self._model(rays)
            metrics = self._model.get_metrics_dict(outputs, batch)
            losses = self._model.get_loss_dict(outputs, batch, metrics)
            loss = torch.stack([*losses.values()]).sum()
        self._scaler.scale(loss).backward()
        for optimizer, _ in self._optimizers.values():
            # In most steps the proposal networks are only asked, and have no gradients: which a scaler takes for a mistake.
            if any(one.grad is not None for group in optimizer.param_groups for one in group["params"]):
                self._scaler.step(optimizer)
        before = self._scaler.get_scale()
        self._scaler.update()
        if self._scaler.get_scale() >= before:  # else the gradients overflowed, and no step was made
            for _, schedule in self._optimizers.values():
                schedule.step()
        for callback in self._callbacks:
            callback.run_callback_at_location(
                self._steps, location=TrainingCallbackLocation.AFTER_TRAIN_ITERATION
            )
        self._steps += 1
        return {"loss": float(loss.detach()), "psnr": float(metrics["psnr"])}

    def _rays(self, photos: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> RayBundle:
        centres = np.stack([rows, columns], 1).astype(np.float32) + 0.5
        return self._cameras.generate_rays(
            camera_indices=torch.from_numpy(photos)[:, None].to(self._device),
            coords=torch.from_numpy(centres).to(self._device),
        )

    def render(self, camera: Any) -> Rendering:
        """What ``camera`` sees, with the mean of the photos' appearances."""
        self._model.eval()
        sampler = self._model.proposal_sampler
        since_update = (
            sampler._steps_since_update
        )  # nerfstudio counts a rendering as an update of the proposal networks
        with torch.no_grad(), torch.autocast(self._device.type, enabled=self._mixed):
            rays = self._to_nerfstudio([camera]).to(self._device).generate_rays(0, keep_shape=True)
            outputs = self._model.get_outputs_for_camera_ray_bundle(rays)
        sampler._steps_since_update = since_update
        along = outputs["depth"][..., 0].float() / self._scale
        z = along / rays.metadata["directions_norm"][..., 0]
        return Rendering(
            outputs["rgb"].float().cpu().numpy(),
            z.cpu().numpy(),
            outputs["accumulation"][..., 0].float().clamp(0, 1).cpu().numpy(),
        )

    def save(self, folder: Path) -> None:
        """The networks, Adam's moments, and what chance and the schedules stand at."""
        save_tensors(folder / "model.npz", self._model.state_dict())
        counts = {}
        for name, (optimizer, schedule) in self._optimizers.items():
            state = optimizer.state_dict()["state"]
            flat = {
                f"{parameter}.{key}": value
                for parameter, entry in state.items()
                for key, value in entry.items()
            }
            save_tensors(folder / f"adam-{name}.npz", flat)
            counts[name] = schedule.last_epoch
        chance = {"cpu": torch.get_rng_state()}
        if self._mixed:
            chance["cuda"] = torch.cuda.get_rng_state(self._device)
        save_tensors(folder / "chance.npz", chance)
        sampler = self._model.proposal_sampler
        document = {
            "steps": self._steps,
            "schedules": counts,
            "generator": self._generator.bit_generator.state,
            "scaler": self._scaler.state_dict(),
            "sampler": {name: float(getattr(sampler, name)) for name in SAMPLER},
        }
        (folder / "state.json").write_text(json.dumps(document))

    def load(self, folder: Path) -> None:
        """What :meth:`save` wrote."""
        self._model.load_state_dict(load_tensors(folder / "model.npz", self._device))
        document = json.loads((folder / "state.json").read_text())
        for name, (optimizer, schedule) in self._optimizers.items():
            whole = optimizer.state_dict()
            state: dict[int, dict[str, torch.Tensor]] = {}
            for key, value in load_tensors(folder / f"adam-{name}.npz").items():
                parameter, _, what = key.partition(".")
                state.setdefault(int(parameter), {})[what] = value
            optimizer.load_state_dict({**whole, "state": state})
            schedule.last_epoch = document["schedules"][name]
            for group, base, rate in zip(
                optimizer.param_groups, schedule.base_lrs, schedule.lr_lambdas, strict=True
            ):
                group["lr"] = base * rate(schedule.last_epoch)
        chance = load_tensors(folder / "chance.npz")
        torch.set_rng_state(chance["cpu"])
        if self._mixed:
            torch.cuda.set_rng_state(chance["cuda"], self._device)
        self._steps = document["steps"]
        self._generator.bit_generator.state = document["generator"]
        self._scaler.load_state_dict(document["scaler"])
        for name in SAMPLER:
            setattr(self._model.proposal_sampler, name, document["sampler"][name])


def _pose(camera: Any) -> np.ndarray:
    """Camera to world, float64[4, 4], with OpenGL's axes: y up, z backward."""
    pose = np.eye(4)
    pose[:3, :3] = camera.R.T @ OPENGL
    pose[:3, 3] = camera.centre
    return pose


class _NoLpips(torch.nn.Module):
    """Stands where nerfacto keeps LPIPS, for a page of nerfstudio's own that isn't used here."""

    def __init__(self, **_: Any) -> None:
        super().__init__()


@contextlib.contextmanager
def _without_lpips() -> Iterator[None]:
    """While a model is made: it would load LPIPS's weights from the network, and Turntable scores for itself."""
    import torchmetrics.image.lpip as lpip

    kept = lpip.LearnedPerceptualImagePatchSimilarity
    lpip.LearnedPerceptualImagePatchSimilarity = _NoLpips
    try:
        yield
    finally:
        lpip.LearnedPerceptualImagePatchSimilarity = kept
