"""What is taken for what."""

from auxlight.inspection.agreement import shares
from auxlight.inspection.board import Board
from auxlight.inspection.evidence import Evidence
from auxlight.inspection.heatmap import block_names, heatmap
from auxlight.inspection.view import View


class ConfusionMatrices(View):
    """Of the validation images: primary class against prediction; of the last epoch's: human sub-label against label.

    Rows sum to 1.
    """

    def show(self, evidence: Evidence, board: Board) -> None:
        """See `View.show`."""
        if not board.has_pictures:
            return
        hierarchy, data = evidence.module.hierarchy, evidence.data
        found = shares(evidence.batch.primary, evidence.logits.argmax(1), hierarchy.num_primary, hierarchy.num_primary)
        accuracy = float((evidence.logits.argmax(1) == evidence.batch.primary).float().mean())
        names = data.class_names
        title = f"{len(evidence.losses)} validation images, {accuracy:.1%} right"
        board.figure("confusion/primary", heatmap(found.numpy(), title, ("primary class", names), ("predicted", names)))
        trained = evidence.trained
        if trained is not None and trained.human is not None:
            found = shares(trained.human, trained.label, hierarchy.num_auxiliary, hierarchy.num_auxiliary + 1)
            title = f"labels of {len(trained.label)} training images"
            board.figure(
                "confusion/human_and_learned",
                heatmap(
                    found.numpy(),
                    title,
                    ("human sub-label", data.auxiliary_names),
                    ("learned label", [*block_names(hierarchy), "none"]),
                ),
            )
