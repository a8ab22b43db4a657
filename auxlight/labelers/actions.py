"""What an agent can do with an image, and what that means for the main network."""

import math

import torch
from torch import Tensor, nn

from auxlight.batch import AuxiliaryTarget
from auxlight.errors import InputError
from auxlight.functional import masked_softmax, sample_weight
from auxlight.hierarchy import LabelHierarchy


class LabelActions:
    """Actions (label,) or (label, weight level) ↔ auxiliary targets.

    Args:
        hierarchy: which auxiliary classes each primary class owns.
        weight_levels: number of weight levels u ∈ {0, …, 1} (Eq. 8; paper 21), or None for weight 1 throughout.
        block_relative: False (paper): the label is one of all K auxiliary classes, and one outside the image's block
            says nothing (its target is uniform over the block). True: one of max ψ places in the block, taken modulo
            ψ_y, so that every action says something.
        sharpness: logit of the chosen label before the masked softmax. 1 (paper) gives the chosen of five labels
            0.405 and the others 0.149; infinity a one-hot target.
        weight_exponents: base-2 logarithms of the lowest and the highest weight (Eq. 8: −5 and 5; the authors' later
            code: −3 and 5).

    Attributes:
        sizes: number of choices of each part.

    Raises:
        InputError: fewer than 2 weight levels, exponents out of order, or a sharpness that is not positive.
    """

    def __init__(
        self,
        hierarchy: LabelHierarchy,
        weight_levels: int | None = None,
        block_relative: bool = False,
        sharpness: float = 1.0,
        weight_exponents: tuple[float, float] = (-5.0, 5.0),
    ) -> None:
        if weight_levels is not None and weight_levels < 2:
            raise InputError(
                f"`weight_levels` must be at least 2. Found weight_levels={weight_levels}: set `weighted: false` for a "
                "weight of 1 throughout."
            )
        if not sharpness > 0:
            raise InputError(f"`sharpness` must be positive. Found sharpness={sharpness}.")
        if len(weight_exponents) != 2 or not -math.inf < weight_exponents[0] < weight_exponents[1] < math.inf:
            raise InputError(
                "`weight_exponents` must be the exponents of the lowest and the highest weight, in this order. "
                f"Found weight_exponents={tuple(weight_exponents)}."
            )
        self.hierarchy = hierarchy
        self.weight_levels = weight_levels
        self.block_relative = block_relative
        self.sharpness = sharpness
        self.weight_exponents = weight_exponents
        labels = max(hierarchy.psi) if block_relative else hierarchy.num_auxiliary
        self.sizes: tuple[int, ...] = (labels,) if weight_levels is None else (labels, weight_levels)

    def places(self, actions: Tensor, primary: Tensor) -> Tensor:
        """The place of each label in its image's block, (B,); −1 for one that lies outside."""
        sizes = torch.as_tensor(self.hierarchy.psi, device=primary.device)[primary]
        if self.block_relative:
            return actions[:, 0] % sizes
        place = actions[:, 0] - self.hierarchy.to_global(primary, torch.zeros_like(primary))
        return torch.where((place >= 0) & (place < sizes), place, -1)

    def target(self, actions: Tensor, primary: Tensor) -> AuxiliaryTarget:
        """Targets of actions.

        Args:
            actions: (B, len(sizes)) int64.
            primary: (B,) int64.
        """
        label = actions[:, 0]
        if self.block_relative:
            label = self.hierarchy.to_global(primary, label)
        chosen = nn.functional.one_hot(label, self.hierarchy.num_auxiliary).float()
        # Any finite logit above ~104 is one-hot in float32 already; infinity itself would make NaN of 0 · ∞.
        logits = chosen * min(self.sharpness, 1e4)
        probabilities = masked_softmax(logits, self.hierarchy.mask.to(primary.device)[primary])
        if self.weight_levels is None:
            return AuxiliaryTarget(probabilities, probabilities.new_ones(len(primary)))
        level = actions[:, 1].float() / (self.weight_levels - 1)
        return AuxiliaryTarget(probabilities, sample_weight(level, *self.weight_exponents))
