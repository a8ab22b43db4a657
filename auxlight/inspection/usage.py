"""Whether the label space is used, and whether the labels follow the human ones."""

import torch

from auxlight.inspection.agreement import agreement, effective_labels, shares
from auxlight.inspection.board import Board
from auxlight.inspection.evidence import Evidence
from auxlight.inspection.heatmap import heatmap
from auxlight.inspection.view import View


class LabelUsage(View):
    """The labels of the last epoch's training images.

    ``labels/effective``: how many labels a primary class uses, the mean over classes of exp(entropy of its images'
    labels), between 1 and ψ; ``labels/inside``: share of images whose label lies in their block;
    ``labels/human_nmi`` and ``labels/human_ari``: agreement with human sub-labels within the classes (see
    `auxlight.inspection.agreement`); and a picture: each class's shares.
    """

    def show(self, evidence: Evidence, board: Board) -> None:
        """See `View.show`."""
        trained, hierarchy = evidence.trained, evidence.module.hierarchy
        if trained is None:
            return
        used = shares(trained.primary, trained.label, hierarchy.num_primary, hierarchy.num_auxiliary)
        present = used.sum(1) > 0
        inside = hierarchy.mask[trained.primary, trained.label]
        values = {
            "labels/effective": float(effective_labels(used)[present].mean()),
            "labels/inside": float(inside.float().mean()),
        }
        if trained.human is not None:
            values["labels/human_nmi"], values["labels/human_ari"] = agreement(
                trained.primary, trained.label, trained.human
            )
        board.scalars(values)
        if not board.has_pictures:
            return
        table = torch.full((hierarchy.num_primary, max(hierarchy.psi)), float("nan"))
        for y, (start, size) in enumerate(zip(hierarchy.starts.tolist(), hierarchy.psi, strict=True)):
            table[y, :size] = used[y, start : start + size]
        board.figure(
            "label_usage",
            heatmap(
                table.numpy(),
                f"{values['labels/effective']:.2f} effective labels per class",
                ("primary class", evidence.data.class_names),
                ("label in its block", [str(place) for place in range(max(hierarchy.psi))]),
            ),
        )
