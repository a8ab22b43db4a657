"""What forward-mode passes do otherwise than torch: batch norm in fused kernels, and no tangents through `no_grad`.

torch's own tangent of batch norm is a composite of some fifteen elementwise operations over the whole activation: a
quarter of a forward-mode pass of VGG16 at quarter width. In training mode the derivative of batch norm with respect to
its input, γ/σ·(I − 1·1ᵀ/n − x̂·x̂ᵀ/n) with x̂ = (x − μ)/σ, is symmetric. So its backward kernel, given the input's
tangent, returns the output's.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode


class Tangents(TorchFunctionMode):
    """Inside this block `torch.nn.functional.batch_norm` by batch statistics has a tangent of three kernels.

    And what a network computes under `torch.no_grad` is a constant, as it is to backpropagation: forward mode itself
    takes no notice of it.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Redirect the one function; stop gradients."""
        args, kwargs = (args, kwargs or {}) if torch.is_grad_enabled() else _constant((args, kwargs or {}))
        return (_batch_norm if func is F.batch_norm else func)(*args, **kwargs)


def _constant(part: Any) -> Any:
    """Arguments without their tangents; what is written into them is, too."""
    if isinstance(part, Tensor):
        primal, tangent = _unpack(part)
        return part if tangent is None else primal
    if type(part) in (tuple, list):
        return type(part)(map(_constant, part))
    return {key: _constant(value) for key, value in part.items()} if type(part) is dict else part


def _batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    x, x_tangent = _unpack(input)
    gamma, gamma_tangent = _unpack(weight)
    beta, beta_tangent = _unpack(bias)
    statistics = (running_mean, running_var)
    constant = x_tangent is None and gamma_tangent is None and beta_tangent is None
    if constant or not training or not _is_valid(x, *statistics, gamma, beta):
        return F.batch_norm(input, *statistics, weight, bias, training, momentum, eps)
    output, mean, inverse_std = torch.native_batch_norm(x, gamma, beta, *statistics, True, momentum, eps)  # type: ignore[arg-type]
    tangent = None
    if x_tangent is not None:
        tangent = torch.ops.aten.native_batch_norm_backward(
            x_tangent, x, gamma, *statistics, mean, inverse_std, True, eps, [True, False, False]
        )[0]
    if gamma_tangent is not None or beta_tangent is not None:  # γ̇·x̂ + β̇ is a batch norm by known statistics
        gamma_tangent = torch.zeros_like(mean) if gamma_tangent is None else gamma_tangent
        variance = inverse_std.pow(-2)
        through_affine = torch.native_batch_norm(x, gamma_tangent, beta_tangent, mean, variance, False, 0.0, 0.0)[0]
        tangent = through_affine if tangent is None else tangent.add_(through_affine)
    return forward_ad.make_dual(output, tangent)  # type: ignore[no-any-return,no-untyped-call]


def _unpack(tensor: Tensor | None) -> tuple[Any, Any]:
    return (None, None) if tensor is None else forward_ad.unpack_dual(tensor)  # type: ignore[no-untyped-call]


def _is_valid(x: Tensor, *per_channel: Tensor | None) -> bool:
    """Whether torch would take these; if not, its own function says why."""
    if x.ndim < 2 or x.numel() <= x.shape[1]:
        return False
    return all(tensor is None or tensor.numel() == x.shape[1] for tensor in per_channel)
