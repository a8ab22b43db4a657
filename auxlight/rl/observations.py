"""What the agent sees of an image before it names its label."""

from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from auxlight.batch import Batch
from auxlight.errors import InputError
from auxlight.networks.snapshot import Snapshot
from auxlight.rl.learner import FeatureLearner, Learner

# One array for all images, or one for each part of what is seen.
Observed = np.ndarray | dict[str, np.ndarray]


class ImageObservation:
    """The image itself, as in the paper; on request with the primary label beside it.

    Args:
        shape: (C, H, W).
        num_primary: number of primary classes, to show the label; None (paper) keeps it hidden.
    """

    def __init__(self, shape: tuple[int, ...], num_primary: int | None = None) -> None:
        self.shape = tuple(shape)
        self.num_primary = num_primary

    @property
    def space(self) -> spaces.Box | spaces.Dict:
        """Of one image's observation."""
        seen = spaces.Box(-np.inf, np.inf, self.shape, np.float32)
        if self.num_primary is None:
            return seen
        return spaces.Dict({"seen": seen, "primary": spaces.Discrete(self.num_primary)})

    def __call__(self, learner: Learner, batch: Batch) -> Observed:
        """What the agent sees of a batch.

        Returns:
            ``(B, *shape)`` float32, beside (B,) primary labels where they are shown.

        Raises:
            InputError: images of another shape.
        """
        return self.arrays(self.seen(learner, batch), batch)

    def arrays(self, seen: Tensor, batch: Batch) -> Observed:
        """What `__call__` returns, of images that were looked at already."""
        if tuple(seen.shape[1:]) != self.shape:
            raise InputError(
                f"Every image of the game must have the shape {self.shape}. Found {tuple(seen.shape[1:])}."
            )
        array = seen.detach().float().contiguous().cpu().numpy()
        return array if self.num_primary is None else {"seen": array, "primary": batch.primary.cpu().numpy()}

    def seen(self, learner: Learner, batch: Batch) -> Tensor:
        """``(B, *shape)``."""
        return batch.image


class FeatureObservation(ImageObservation):
    """The main network's features of the image, at its present weights; its next training step reuses their graph.

    Args:
        feature_dim: D.
        num_primary: see `ImageObservation`.
    """

    def __init__(self, feature_dim: int, num_primary: int | None = None) -> None:
        super().__init__((feature_dim,), num_primary)

    def seen(self, learner: FeatureLearner, batch: Batch) -> Tensor:  # type: ignore[override]
        """(B, D)."""
        return learner.features(batch)


class SnapshotObservation(ImageObservation):
    """The features of a main network that holds still (`AgentLabels.snapshot`).

    Args:
        snapshot: images → (B, feature_dim).
        feature_dim: D.
        num_primary: see `ImageObservation`.
    """

    def __init__(self, snapshot: Snapshot, feature_dim: int, num_primary: int | None = None) -> None:
        super().__init__((feature_dim,), num_primary)
        self.snapshot = snapshot

    def seen(self, learner: Learner, batch: Batch) -> Tensor:
        """(B, D)."""
        features: Tensor = self.snapshot(batch.image)
        return features


def one_of(observed: Observed, number: int) -> Any:
    """What is seen of one image of the batch; a copy."""
    if isinstance(observed, dict):
        return {name: part[number].copy() for name, part in observed.items()}
    return observed[number].copy()


def as_tensors(observed: Observed, device: torch.device) -> Tensor | dict[str, Tensor]:
    """For a policy."""
    if isinstance(observed, dict):
        return {name: torch.as_tensor(part, device=device) for name, part in observed.items()}
    return torch.as_tensor(observed, device=device)
