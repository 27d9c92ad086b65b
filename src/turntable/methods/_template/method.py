"""A method that runs at once: it shows a blend of the training photos, the nearer their cameras the more they count.

Only one number is learned, how sharply to prefer near photos. Replace what is inside the methods of this class by your
own; what they take and give back is the whole contract. Nothing of Turntable needs to be imported.
"""

import json

import numpy as np


class Blend:
    """Made once for each run, in a process of its own."""

    def __init__(self, views, settings, seed, device):
        """Get ready; no budget pays for this.

        Args:
            views: the training views. Each has ``name``, ``camera`` and ``image`` (float32[H, W, 3] in [0, 1], sRGB; read
                from the disk every time, so keep what you need); ``views.points`` are the sparse points, or None.
                The held-out photos are not here, nor anywhere else that this process can look.
            settings: by name, as in method.toml, with what the user has --set.
            seed: all your randomness comes from it: the same seed must give the same bits.
            device: "cpu", or a card: "cuda:0".
        """
        self.views = list(views)
        self.images = [view.image for view in self.views]
        # World to camera is x_cam = R x + t, with x right, y down, z forward; so the camera stands at -R.T t.
        self.centres = np.stack([view.camera.centre for view in self.views])
        self.directions = np.stack([view.camera.forward for view in self.views])
        self.radius = np.linalg.norm(self.centres - self.centres.mean(0), axis=1).max() or 1.0
        self.sharpness = settings["sharpness"]
        self.step_size = settings["step_size"]
        self.random = np.random.default_rng(seed)

    def step(self):
        """One step of training, the only thing that a budget pays for; called again and again.

        Make it short, a second at most: between two steps, others may have a turn on the device.

        Returns:
            A dict with a ``loss``, and whatever else is worth a curve.
        """
        left_out = int(self.random.integers(len(self.views)))
        trials = self.sharpness * np.exp(self.step_size * np.array([-1.0, 0.0, 1.0]))
        losses = [self.loss(left_out, sharpness) for sharpness in trials]
        self.sharpness = float(trials[int(np.argmin(losses))])
        return {"loss": min(losses), "sharpness": self.sharpness}

    def loss(self, index, sharpness):
        """The squared error of showing one training view without its own photo, at few pixels."""
        image = self.images[index]
        shown = self.blend(
            self.views[index].camera, image.shape[0] // 8, image.shape[1] // 8, sharpness, without=index
        )
        rows, columns = sample(shown.shape[0], image.shape[0]), sample(shown.shape[1], image.shape[1])
        return float(((shown - image[np.ix_(rows, columns)]) ** 2).mean())

    def blend(self, camera, height, width, sharpness, without=None):
        """The weighted mean of the photos, float32[height, width, 3]."""
        apart = np.linalg.norm(self.centres - camera.centre, axis=1) / self.radius
        apart = apart + np.arccos(np.clip(self.directions @ camera.forward, -1, 1))
        if without is not None and len(apart) > 1:
            apart[without] = np.inf
        weights = np.exp(-sharpness * (apart - apart.min()))
        weights /= weights.sum()
        picture = np.zeros((max(height, 1), max(width, 1), 3), np.float32)
        for weight, image in zip(weights, self.images, strict=True):
            if weight > 1e-3:
                rows, columns = (
                    sample(picture.shape[0], image.shape[0]),
                    sample(picture.shape[1], image.shape[1]),
                )
                picture += np.float32(weight) * image[np.ix_(rows, columns)]
        return picture

    def render(self, camera):
        """Show the scene from a camera: ``image`` float32[H, W, 3]; a ``depth`` float32[H, W] too, if there is one."""
        return {"image": self.blend(camera, camera.height, camera.width, self.sharpness)}

    def save(self, folder):
        """Write everything that changes, so that a run that was stopped ends with the same bits as one that wasn't."""
        state = {"sharpness": self.sharpness, "random": self.random.bit_generator.state}
        (folder / "state.json").write_text(json.dumps(state))

    def load(self, folder):
        """Take up what ``save`` has written, in an object that was just made with the same arguments."""
        state = json.loads((folder / "state.json").read_text())
        self.sharpness = state["sharpness"]
        self.random.bit_generator.state = state["random"]


def sample(count, of):
    """``count`` indices spread evenly over ``of``."""
    return np.minimum(((np.arange(count) + 0.5) * of / count).astype(int), of - 1)
