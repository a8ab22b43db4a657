"""Classification metrics of one stage."""

from torch import nn
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score, MulticlassPrecision, MulticlassRecall

from auxlight.hierarchy import LabelHierarchy


class StageMetrics(nn.Module):
    """Metrics of the primary classes and, against human sub-labels, of the auxiliary ones.

    Args:
        hierarchy: primary and auxiliary classes.
        prefix: of the names, such as "val/".

    Attributes:
        primary: accuracy (share of images), and precision, recall and F1 averaged over classes.
        auxiliary: accuracy of the best of all K logits. It means agreement with the human sub-labels, whoever made
            those that were trained on.
    """

    def __init__(self, hierarchy: LabelHierarchy, prefix: str) -> None:
        super().__init__()
        classes = hierarchy.num_primary
        self.primary = MetricCollection(
            {
                "accuracy": MulticlassAccuracy(classes, average="micro"),
                "precision": MulticlassPrecision(classes, average="macro"),
                "recall": MulticlassRecall(classes, average="macro"),
                "f1": MulticlassF1Score(classes, average="macro"),
            },
            prefix=prefix,
        )
        self.auxiliary = MetricCollection(
            {"auxiliary_accuracy": MulticlassAccuracy(hierarchy.num_auxiliary, average="micro")}, prefix=prefix
        )
