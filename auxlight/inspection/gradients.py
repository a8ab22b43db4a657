"""Whether the tasks pull the trunk the same way."""

import torch

from auxlight.batch import Batch
from auxlight.errors import InputError
from auxlight.inspection.board import Board
from auxlight.inspection.evidence import Evidence
from auxlight.inspection.view import View
from auxlight.modules.aside import aside
from auxlight.modules.classifier import AuxiliaryClassifier
from auxlight.networks.buffers import evaluation_mode


class TaskGradients(View):
    """Gradients of the tasks' mean losses (with their weights λ) with respect to the trunk, on validation images.

    ``gradients/<task>_norm`` for the primary and each auxiliary task, and ``gradients/<task>_cosine`` of an auxiliary
    task's gradient with the primary one's: what an auxiliary step does for images that the network does not train on.
    In evaluation mode, before any combiner.

    Args:
        num_images: how many of the inspected images.

    Raises:
        InputError: a number below 1.
    """

    def __init__(self, num_images: int = 64) -> None:
        if num_images < 1:
            raise InputError(f"`num_images` of TaskGradients must be at least 1. Found num_images={num_images}.")
        self.num_images = num_images

    def show(self, evidence: Evidence, board: Board) -> None:
        """See `View.show`."""
        chosen = torch.arange(min(self.num_images, len(evidence.losses)), device=evidence.module.device)
        board.scalars(task_gradients(evidence.module, evidence.batch.select(chosen)))


def task_gradients(module: AuxiliaryClassifier, batch: Batch) -> dict[str, float]:
    """Lengths of the tasks' gradients for the trunk, and their cosines with the primary one's; see `TaskGradients`.

    Args:
        module: whose trunk it is; of one that does not train there is nothing to say.
        batch: images with their labels, on the module's device.
    """
    trunk = [parameter for parameter in module.trunk.parameters() if parameter.requires_grad]
    if not trunk:
        return {}
    with aside(module, 0), evaluation_mode(module):
        features = module.features(batch.image)
        losses = module.task_losses(features, module.primary_head(features), batch).means()
        rows = []
        for mean in losses:
            slopes = torch.autograd.grad(mean, trunk, retain_graph=True, materialize_grads=True)
            rows.append(torch.cat([slope.flatten() for slope in slopes]).float())
    gradients = torch.stack(rows)
    norms = gradients.norm(dim=1)
    cosines = gradients @ gradients[0] / (norms * norms[0])  # nan where a gradient vanishes
    names = module.combiner.names
    found = {f"gradients/{name}_norm": float(norm) for name, norm in zip(names, norms, strict=True)}
    pairs = list(zip(names, cosines, strict=True))[1:]
    return found | {f"gradients/{name}_cosine": float(cosine) for name, cosine in pairs}
