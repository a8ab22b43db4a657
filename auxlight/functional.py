"""The papers' equations as pure functions, per sample, computed in log space, for any floating dtype.

Equation numbers are those of "Generating Auxiliary Tasks with Reinforcement Learning" (RL-AUX).
"""

import torch
from torch import Tensor


def masked_softmax(logits: Tensor, mask: Tensor) -> Tensor:
    """Softmax over the auxiliary classes of each sample's own block (RL-AUX Eq. 5 and 6).

    p_k = exp(z_k)·m_k / Σ_j exp(z_j)·m_j

    Args:
        logits: (B, K).
        mask: (B, K) bool, True inside the block; every row must hold a True.

    Returns:
        (B, K) probabilities, exactly 0 outside the block.
    """
    return logits.masked_fill(~mask, -torch.inf).softmax(-1)


def class_losses(logits: Tensor, gamma: float = 2.0) -> Tensor:
    """Focal loss of each sample for each class, were it the sample's label: ℓ_k = −(1 − p_k)^γ log p_k.

    Args:
        logits: (B, K).
        gamma: γ ≥ 0; 0 is cross-entropy.

    Returns:
        (B, K).
    """
    log_p = logits.log_softmax(-1)
    return -_focal_factor(log_p, gamma) * log_p


def focal_loss(logits: Tensor, target: Tensor, gamma: float = 2.0) -> Tensor:
    """Focal loss with soft or hard targets; both losses of RL-AUX and MAXL use it with γ = 2.

    ℓ = −Σ_k t_k (1 − p_k)^γ log p_k,  p = softmax(logits)

    Args:
        logits: (B, K).
        target: (B, K) soft labels, or (B,) int64 classes.
        gamma: γ ≥ 0; 0 is cross-entropy.

    Returns:
        (B,) loss of each sample.
    """
    log_p = logits.log_softmax(-1)
    if not target.is_floating_point():
        log_p = log_p.gather(-1, target[..., None])
        target = torch.ones_like(log_p)
    return -(target * _focal_factor(log_p, gamma) * log_p).sum(-1)


def _focal_factor(log_p: Tensor, gamma: float) -> Tensor | float:
    """(1 − p)^γ."""
    if gamma == 0:
        return 1.0
    # 1 − p without cancellation. The floor keeps the gradient of a fractional power finite where p is exactly 1.
    return (-torch.expm1(log_p)).clamp_min(torch.finfo(log_p.dtype).tiny).pow(gamma)


def batch_entropy(probabilities: Tensor) -> Tensor:
    """*Negative* entropy of a batch's mean label (RL-AUX Eq. 3): H = Σ_k p̄_k log p̄_k ≤ 0, p̄ the mean over the batch.

    H = 0 when every sample has the same label, −log K when the labels are spread evenly over K classes.

    Args:
        probabilities: (B, K).

    Returns:
        Scalar.
    """
    mean = probabilities.mean(0)
    return (mean * mean.clamp_min(torch.finfo(mean.dtype).tiny).log()).sum()


def decided_label(probabilities: Tensor, tolerance: float = 1e-6) -> Tensor:
    """The most probable class of each row, and −1 where no class is more probable than all others.

    An agent that names a class outside of an image's block leaves the block uniform (RL-AUX), as `UniformLabels` do:
    neither names a class.

    Args:
        probabilities: (B, K).
        tolerance: by how much the first must exceed the second.

    Returns:
        (B,) int64.
    """
    if probabilities.shape[-1] == 1:
        return torch.zeros_like(probabilities[..., 0], dtype=torch.int64)
    top = probabilities.topk(2, dim=-1)
    return top.indices[..., 0].where(top.values[..., 0] - top.values[..., 1] > tolerance, -1)


def sample_weight(level: Tensor, low: float = -5.0, high: float = 5.0) -> Tensor:
    """Weight of a sample from a level u in [0, 1] (RL-AUX Eq. 8): w = 2^((high − low)·u + low), by default 2^(10u − 5).

    Args:
        level: any shape, values in [0, 1].
        low: exponent at u = 0.
        high: exponent at u = 1.

    Returns:
        Same shape, values in [2^low, 2^high].
    """
    return torch.exp2((high - low) * level + low)
