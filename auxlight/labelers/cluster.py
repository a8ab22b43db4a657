"""Control: consistent labels that nobody chose for their use."""

import copy
import warnings
from typing import cast

import numpy as np
import torch
from sklearn.cluster import KMeans
from torch import Tensor, nn

from auxlight.batch import AuxiliaryTarget, Batch
from auxlight.distributed import from_first_device
from auxlight.errors import DivergedError, InputError
from auxlight.hierarchy import LabelHierarchy
from auxlight.labelers.base import Images, Labeler
from auxlight.networks.buffers import evaluation_mode
from auxlight.seeding import derive_seed, global_seed


class ClusterLabels(Labeler):
    """The nearest of its primary class's ψ k-means centres, in the features of the main network at an earlier time.

    What a method gains over this is due to labels that *help*, not to labels that look alike images agree in. Before
    `start_epoch` images have weight 0. Then the trunk is copied, and k-means (Lloyd, k-means++) of the copy's features
    of each class's training images, as they are, gives the centres. Labels follow the augmented image. Deep
    clustering (Caron et al., 2018) inside each class, where `every_n_epochs` is given.

    Args:
        start_epoch: first epoch with labels; 0 clusters the features of the untrained network.
        every_n_epochs: epochs from one clustering to the next; None: one for good.
        seed: of k-means; by default the run's.

    Raises:
        InputError: epochs below 0 or 1; features that are not finite.
    """

    centres: Tensor
    clustered: Tensor

    def __init__(self, start_epoch: int = 10, every_n_epochs: int | None = None, seed: int | None = None) -> None:
        super().__init__()
        if start_epoch < 0:
            raise InputError(f"`start_epoch` must be at least 0. Found start_epoch={start_epoch}.")
        if every_n_epochs is not None and every_n_epochs < 1:
            raise InputError(f"`every_n_epochs` must be at least 1. Found every_n_epochs={every_n_epochs}.")
        self.start_epoch = start_epoch
        self.every_n_epochs = every_n_epochs
        self.seed = seed
        self._warned = False

    def bind(self, hierarchy: LabelHierarchy, trunk: nn.Module, feature_dim: int) -> None:
        """Make room for the copy and the centres."""
        super().bind(hierarchy, trunk, feature_dim)
        self.eyes = copy.deepcopy(trunk).requires_grad_(False)
        self.register_buffer("centres", torch.zeros(hierarchy.num_auxiliary, feature_dim))
        # Epoch of the last clustering, in the checkpoint: a run resumed inside that epoch keeps its labels.
        self.register_buffer("clustered", torch.tensor(-1))

    def before_fit(self) -> None:
        """Clusters of another fit do not count."""
        self.clustered.fill_(-1)

    def before_step(self, epoch: int, epochs: int | None, trunk: nn.Module, images: Images) -> None:
        """Cluster, if it is time to."""
        if epochs is not None and 0 <= epochs <= self.start_epoch and not self._warned:
            self._warned = True
            warnings.warn(
                f"Clusters are made at the start of epoch {self.start_epoch} (from 0), but the run has only {epochs} "
                "epochs: no image will have a label. Lower `start_epoch`.",
                stacklevel=2,
            )
        since = epoch - self.start_epoch
        due = since == 0 or (since > 0 and self.every_n_epochs is not None and since % self.every_n_epochs == 0)
        if due and int(self.clustered) != epoch:
            self.eyes.load_state_dict(trunk.state_dict())
            self.centres.copy_(self._cluster(images, epoch))
            self.clustered.fill_(epoch)
            # Batch norm's statistics differ between devices, and so do the numbers that k-means gives to clusters.
            for buffer in (self.centres, *self.eyes.buffers()):
                from_first_device(buffer)

    def _see(self, batch: Batch) -> Tensor:
        # In full precision, also beside a network in mixed one: labels are of the features that were clustered.
        with evaluation_mode(self.eyes), torch.autocast(batch.image.device.type, enabled=False):
            return cast(Tensor, self.eyes(batch.image)).float()

    @torch.no_grad()
    def _cluster(self, images: Images, epoch: int) -> Tensor:
        """Centres (K, D); of a class with fewer images than sub-classes its first one comes more than once."""
        parts = [(self._see(batch).cpu(), batch.primary.cpu()) for batch in images()]
        features, primary = (torch.cat(column).numpy() for column in zip(*parts, strict=True))
        if not np.isfinite(features).all():
            raise DivergedError(
                f"The network's features must be finite to be clustered. Found others in epoch {epoch}: the training "
                "has diverged, lower the learning rate."
            )
        seed = derive_seed(global_seed() if self.seed is None else self.seed, "clusters", epoch) % 2**32
        centres = np.zeros(tuple(self.centres.shape), dtype=np.float32)
        for y, psi in enumerate(self.hierarchy.psi):
            own = features[primary == y]
            if not len(own):
                continue
            k = min(psi, len(np.unique(own, axis=0)))
            found = KMeans(k, n_init=4, random_state=seed).fit(own).cluster_centers_
            start = self.hierarchy.starts[y]
            centres[start : start + psi] = found[[i if i < k else 0 for i in range(psi)]]
        return torch.from_numpy(centres)

    @torch.no_grad()
    def forward(self, batch: Batch, features: Tensor) -> AuxiliaryTarget:
        """See `Labeler.forward`."""
        if int(self.clustered) < 0:
            block = self.mask[batch.primary].float()
            return AuxiliaryTarget(block / block.sum(1, keepdim=True), block.new_zeros(len(block)))
        distance = torch.cdist(self._see(batch), self.centres.float())
        return self.hard_target(distance.masked_fill(~self.mask[batch.primary], torch.inf).argmin(1))
