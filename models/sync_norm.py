"""Batch norm whose statistics are those of the whole batch, however many processes share it.

torch's SyncBatchNorm does this on CUDA only. Here it is for any device and back end of torch.distributed.
"""

from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm


def synchronise_norms(model: nn.Module) -> nn.Module:
    """Turn every BatchNorm1d and BatchNorm2d inside `model` into a SyncNorm that holds the same tensors."""
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.BatchNorm1d | nn.BatchNorm2d):
                setattr(parent, name, SyncNorm.of(child))
    return model


class SyncNorm(_BatchNorm):
    """Batch norm over the batches of all processes together; each of them must call it equally often in training.

    In evaluation, and where there is one process, it is torch's batch norm.
    """

    momentum: float
    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    @classmethod
    def of(cls, norm: nn.BatchNorm1d | nn.BatchNorm2d) -> "SyncNorm":
        """One with the parameters and buffers of `norm` (not copies of them)."""
        if norm.momentum is None or not norm.affine or not norm.track_running_stats:
            raise ValueError(f"{norm}: only a batch norm with momentum, weights and running statistics can be shared")
        made = cls(norm.num_features, norm.eps, norm.momentum, device="meta").train(norm.training)
        made._parameters, made._buffers = norm._parameters, norm._buffers
        return made

    def _check_input_dim(self, x: Tensor) -> None:
        if x.ndim < 2:
            raise ValueError(f"A batch norm takes (B, C, ...), not {tuple(x.shape)}.")

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, C, ...)."""
        if not self.training or not distributed.is_initialized() or distributed.get_world_size() == 1:
            return super().forward(x)
        self._check_input_dim(x)
        mean, variance, count = _moments(x.detach())
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * (count / (count - 1)), self.momentum)
            self.num_batches_tracked += 1
        return _Normalise.apply(x, mean, variance, count, self.weight, self.bias, self.eps)


def _moments(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and biased variance (C,) of x (B, C, ...) over all processes, and of how many values a channel.

    Each process centres its own values first: a sum of squares would lose a variance that is small beside the mean (of
    a focal length, say).
    """
    variance, mean = torch.var_mean(x.float(), _all_but_channels(x), correction=0)
    own = torch.cat([mean, variance, mean.new_full((1,), x.numel() / x.shape[1])])
    ranks = distributed.get_world_size()
    everybody = own.new_empty(ranks * len(own))
    distributed.all_gather_single(everybody, own)  # not into a list of tensors: this one a compiler knows
    means, variances, counts = everybody.view(ranks, -1).split([len(mean), len(mean), 1], 1)
    share = counts / counts.sum()
    mean = (share * means).sum(0)
    return mean, (share * (variances + (means - mean).square())).sum(0), counts.sum()


class _Normalise(torch.autograd.Function):
    """(x - mean) / sqrt(variance + eps) * weight + bias, where mean and variance are functions of everybody's x.

    The gradient is that of the SUM of all processes' losses; averaging the parameters' gradients over the processes
    afterwards makes it that of the mean.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, mean: Tensor, variance: Tensor, count: Tensor, weight: Tensor, bias: Tensor, eps: float
    ) -> Tensor:
        ctx.save_for_backward(x, mean, (variance + eps).rsqrt(), count, weight)
        return F.batch_norm(x, mean, variance, weight, bias, training=False, eps=eps)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, mean, inverse_deviation, count, weight = ctx.saved_tensors
        along_channels = (-1, *(1,) * (x.ndim - 2))
        normal = (x.float() - mean.view(along_channels)) * inverse_deviation.view(along_channels)
        grad = grad.float()
        own = torch.stack([(grad * normal).sum(_all_but_channels(x)), grad.sum(_all_but_channels(x))])
        everybody = own.clone()
        distributed.all_reduce(everybody)
        along_normal, along_mean = (everybody / count).view(2, *along_channels).unbind(0)
        scale = (weight * inverse_deviation).view(along_channels)
        grad_x = scale * (grad - along_mean - normal * along_normal)
        return grad_x.to(x.dtype), None, None, None, own[0], own[1], None


def _all_but_channels(x: Tensor) -> list[int]:
    return [0, *range(2, x.ndim)]
