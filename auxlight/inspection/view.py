"""One way to look at what was learned."""

from abc import ABC, abstractmethod

from auxlight.inspection.board import Board
from auxlight.inspection.evidence import Evidence


class View(ABC):
    """Shows something of the evidence on a board; see `Inspection`.

    An own view is one class::

        class HardestImage(View):
            def show(self, evidence, board):
                board.image("hardest", evidence.image[evidence.losses.argmax().cpu()].permute(1, 2, 0).numpy())

    Attributes:
        only_at_end: once, when the fit is over, for what is dear or large.
    """

    only_at_end = False

    @abstractmethod
    def show(self, evidence: Evidence, board: Board) -> None:
        """Write what is to be seen; nothing where there is nothing, such as labels without a labeler.

        Args:
            evidence: of this epoch.
            board: where to.
        """
