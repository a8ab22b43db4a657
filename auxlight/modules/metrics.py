"""Classification metrics of one stage."""

from torch import nn
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score, MulticlassPrecision, MulticlassRecall

from auxlight.hierarchy import LabelHierarchy


def stage_metrics(hierarchy: LabelHierarchy, prefix: str) -> nn.ModuleDict:
    """Metrics of the primary classes and, against human sub-labels, of the auxiliary ones.

    Primary: accuracy (share of images), and precision, recall and F1 averaged over classes. Auxiliary: accuracy, the
    best of all K logits; it means agreement with the human labels, whoever made those that were trained on.
    """
    classes = hierarchy.num_primary
    primary = MetricCollection(
        {
            "accuracy": MulticlassAccuracy(classes, average="micro"),
            "precision": MulticlassPrecision(classes, average="macro"),
            "recall": MulticlassRecall(classes, average="macro"),
            "f1": MulticlassF1Score(classes, average="macro"),
        },
        prefix=prefix,
    )
    auxiliary = MetricCollection(
        {"auxiliary_accuracy": MulticlassAccuracy(hierarchy.num_auxiliary, average="micro")}, prefix=prefix
    )
    return nn.ModuleDict({"primary": primary, "auxiliary": auxiliary})
