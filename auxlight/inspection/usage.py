"""Whether the label space is used, and whether the labels follow the human ones."""

import torch

from auxlight.hierarchy import LabelHierarchy
from auxlight.inspection.agreement import agreement, effective_labels, shares
from auxlight.inspection.board import Board
from auxlight.inspection.evidence import Evidence
from auxlight.inspection.heatmap import heatmap
from auxlight.inspection.record import EpochLabels
from auxlight.inspection.view import View


def label_usage(trained: EpochLabels, hierarchy: LabelHierarchy) -> dict[str, float]:
    """The scalars of `LabelUsage`.

    Args:
        trained: labels of an epoch.
        hierarchy: their blocks.
    """
    labelled = shares(trained.primary, trained.label, hierarchy.num_primary, hierarchy.num_auxiliary + 1)[:, :-1]
    values = {
        "labels/decided": float((trained.label >= 0).float().mean()),
        "labels/confidence": float(trained.confidence.mean()),
        "labels/effective": float(effective_labels(labelled)[labelled.sum(1) > 0].mean()),
    }
    if trained.human is not None:
        values["labels/human_nmi"], values["labels/human_ari"] = agreement(
            trained.primary, trained.label, trained.human
        )
    return values


class LabelUsage(View):
    """The labels of the last epoch's training images.

    - ``labels/decided``: share of images for which one label is the most probable one (an agent that names a class
      outside of the block decides nothing, nor do uniform labels);
    - ``labels/confidence``: mean probability of the most probable label (1/ψ: undecided);
    - ``labels/effective``: how many labels a primary class uses, the mean over classes of exp(entropy of its decided
      images' labels), between 1 and ψ, however faintly they are decided;
    - ``labels/human_nmi``, ``labels/human_ari``: agreement of decided labels with human sub-labels within the classes
      (see `auxlight.inspection.agreement`);
    - and a picture: each class's shares.
    """

    def show(self, evidence: Evidence, board: Board) -> None:
        """See `View.show`."""
        trained, hierarchy = evidence.trained, evidence.module.hierarchy
        if trained is None:
            return
        # The last column: no label.
        used = shares(trained.primary, trained.label, hierarchy.num_primary, hierarchy.num_auxiliary + 1)
        values = label_usage(trained, hierarchy)
        board.scalars(values)
        if not board.has_pictures:
            return
        most = max(hierarchy.psi)
        table = torch.full((hierarchy.num_primary, most + 1), float("nan"))
        for y, (start, size) in enumerate(zip(hierarchy.starts.tolist(), hierarchy.psi, strict=True)):
            table[y, :size] = used[y, start : start + size]
        table[:, -1] = used[:, -1]
        board.figure(
            "label_usage",
            heatmap(
                table.numpy(),
                f"confidence {values['labels/confidence']:.2f}",
                ("primary class", evidence.data.class_names),
                ("label in its block", [*(str(place) for place in range(most)), "none"]),
            ),
        )
