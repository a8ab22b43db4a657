"""How learned labels are used, and how far they follow human ones: pure functions of labels at hand."""

import numpy as np
import torch
from torch import Tensor


def shares(row: Tensor, column: Tensor, rows: int, columns: int) -> Tensor:
    """(rows, columns): of the images of each row's class, the share in each column's; 0 in rows without images.

    A column of −1 is the last one.

    Args:
        row: (N,) int64, such as primary classes.
        column: (N,) int64, such as auxiliary classes.
        rows: number of the former.
        columns: number of the latter.
    """
    counts = (
        (row.cpu() * columns + column.cpu() % columns).bincount(minlength=rows * columns).view(rows, columns).float()
    )
    found: Tensor = counts / counts.sum(1, keepdim=True).clamp_min(1)
    return found


def effective_labels(table: Tensor) -> Tensor:
    """(C,): exp of the entropy of each row of shares (C, K): 1 where all images share a label, ψ where all are used.

    Rows need not sum to 1: shares of images with a label are scaled to.
    """
    table = table / table.sum(1, keepdim=True).clamp_min(1e-12)
    number: Tensor = torch.special.entr(table).sum(1).exp()
    return number


def agreement(primary: Tensor, label: Tensor, human: Tensor) -> tuple[float, float]:
    """Agreement of two labellings *within* the primary classes, each class counted by its images with a label.

    Over all images any labels inside their blocks agree a great deal: both know the primary class. Classes in which
    the human labels do not differ say nothing and are left out.

    Args:
        primary: (N,) primary class.
        label: (N,) learned label; images with −1, none, are left out.
        human: (N,) human sub-label.

    Returns:
        Normalised mutual information, in [0, 1] (chance is above 0 in small samples), and adjusted Rand index (0 by
        chance, 1 for the same groups); nan where no class has two human labels.
    """
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score  # slow to import

    columns = [part[label >= 0].cpu().numpy() for part in (primary, label, human)]
    found, sizes = [], []
    for y in np.unique(columns[0]):
        ours, theirs = (part[columns[0] == y] for part in columns[1:])
        if len(np.unique(theirs)) > 1:
            found.append((normalized_mutual_info_score(theirs, ours), adjusted_rand_score(theirs, ours)))
            sizes.append(len(ours))
    if not found:
        return float("nan"), float("nan")
    information, rand = np.average(np.array(found), axis=0, weights=sizes)
    return float(information), float(rand)
