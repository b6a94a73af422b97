"""The layers that models share.

n: rows, D: embedding dim, M: fields, T: targets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable

from training.modeling.embedding import INITIAL_STD

SumAcrossRanks = Callable[[Tensor], Tensor]


class CrossRank(nn.Module):
    """A layer with statistics of the global batch. Alone, and until told otherwise, a rank's batch is all."""

    sum_across_ranks: SumAcrossRanks | None = None


class _DifferentiableSum(torch.autograd.Function):
    """Sum over ranks; every rank's loss depends on the sum, so the gradients are summed over ranks, too."""

    @staticmethod
    def forward(ctx: FunctionCtx, value: Tensor, sum_across_ranks: SumAcrossRanks) -> Tensor:
        ctx.sum_across_ranks = sum_across_ranks  # type: ignore[attr-defined]
        return sum_across_ranks(value)

    @staticmethod
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor, None]:
        return ctx.sum_across_ranks(gradient.contiguous()), None  # type: ignore[attr-defined]


# What is compiled ends here, and begins anew when the other ranks have answered.
@torch.compiler.disable  # type: ignore[untyped-decorator]
def _differentiable_sum(own: Tensor, sum_across_ranks: SumAcrossRanks) -> Tensor:
    total: Tensor = _DifferentiableSum.apply(own, sum_across_ranks)  # type: ignore[no-untyped-call]
    return total


class BatchNorm(CrossRank):
    """Batch normalisation over all ranks' rows, on CPU and GPU alike (Ioffe & Szegedy 2015, algorithm 1).

    y = γ (x − μ) / sqrt(σ² + ε) + β, with μ and σ² of the global batch in training, and running averages
    otherwise; γ = 1 and β = 0 unless `affine`. Sums are taken of x − running mean: the variance is then a
    difference of small numbers.
    """

    def __init__(self, width: int, momentum: float = 0.1, epsilon: float = 1e-5, *, affine: bool = True) -> None:
        super().__init__()
        self.momentum, self.epsilon = momentum, epsilon
        self.weight = nn.Parameter(torch.ones(width)) if affine else None
        self.bias = nn.Parameter(torch.zeros(width)) if affine else None
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("variance", torch.ones(width))
        self.mean: Tensor
        self.variance: Tensor

    def forward(self, x: Tensor, present: Tensor | None = None) -> Tensor:
        """[n, width] → [n, width]; only rows where `present` [n] is 1 count for the statistics, all if None."""
        x = x.to(self.mean.dtype)  # statistics are never of fewer bits than the weights
        if not self.training:
            return self._normalised(x, self.mean, self.variance)
        counted = x.new_ones(x.shape[0]) if present is None else present
        centred = (x - self.mean) * counted.unsqueeze(1)
        sums = torch.cat([centred.sum(dim=0), centred.square().sum(dim=0), counted.sum().unsqueeze(0)])
        if self.sum_across_ranks is not None:
            sums = _differentiable_sum(sums, self.sum_across_ranks)
        width, count = x.shape[1], sums[-1].detach().clamp(min=1)
        shift = sums[:width] / count
        variance = sums[width : 2 * width] / count - shift.square()
        mean = self.mean + shift
        output = self._normalised(x, mean, variance)
        with torch.no_grad():
            unbiased = variance * count / (count - 1).clamp(min=1)
            self.mean = torch.lerp(self.mean, mean.detach(), self.momentum)
            self.variance = torch.lerp(self.variance, unbiased, self.momentum)
        return output

    def _normalised(self, x: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
        normal = (x - mean) * torch.rsqrt(variance + self.epsilon)
        return normal if self.weight is None or self.bias is None else normal * self.weight + self.bias


class Dice(nn.Module):
    """Of DIN (Zhou et al. 2018, eq. 3): y = p·x + (1 − p)·α·x, p = sigmoid((x − E[x]) / sqrt(Var[x] + ε)).

    E and Var over the real positions of the whole global batch in training, running averages otherwise; α is learnt.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.normal = BatchNorm(width, epsilon=1e-8, affine=False)
        self.alpha = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor, present: Tensor | None = None) -> Tensor:
        """[n, width] → [n, width]; rows where `present` [n] is 0 do not count for the statistics."""
        share = torch.sigmoid(self.normal(x, present))
        return (share + (1 - share) * self.alpha) * x


ActivationName = Literal["relu", "dice", "prelu", "sigmoid"]


def activation(name: ActivationName, width: int) -> nn.Module:
    """A fresh activation over the last dimension."""
    made: dict[str, Callable[[], nn.Module]] = {
        "relu": lambda: nn.ReLU(inplace=True),
        "dice": lambda: Dice(width),
        "prelu": lambda: nn.PReLU(width),
        "sigmoid": nn.Sigmoid,
    }
    return made[name]()


class MLP(nn.Sequential):
    """Linear → (batch norm) → activation → (dropout), once per width."""

    def __init__(
        self,
        inputs: int,
        widths: Iterable[int],
        *,
        dropout: float,
        batch_norm: bool,
        activated_by: ActivationName = "relu",
    ) -> None:
        layers: list[nn.Module] = []
        for width in widths:
            layers.append(nn.Linear(inputs, width))
            layers += [BatchNorm(width)] if batch_norm else []
            layers.append(activation(activated_by, width))
            layers += [nn.Dropout(dropout)] if dropout else []
            inputs = width
        super().__init__(*layers)
        self.width = inputs


def fm_second_order(fields: Tensor) -> Tensor:
    """Sum of the dot products of all pairs of fields (Rendle 2010, lemma 3.1), in O(M D).

    Σ_{i<j} ⟨v_i, v_j⟩ = ½ Σ_d [(Σ_i v_id)² − Σ_i v_id²].

    Args:
        fields: [n, M, D].

    Returns:
        [n].
    """
    return pairwise(fields).sum(dim=-1)


def pairwise(fields: Tensor) -> Tensor:
    """Sum of the elementwise products of all pairs of fields (He & Chua 2017, eq. 4): [n, M, D] → [n, D]."""
    if fields.requires_grad and not torch.compiler.is_compiling():
        found: Tensor = _Pairwise.apply(fields)  # type: ignore[no-untyped-call]
        return found
    return _pairwise(fields, fields.sum(dim=1))


def _pairwise(fields: Tensor, total: Tensor) -> Tensor:
    return 0.5 * (total.square() - fields.square().sum(dim=1))


class _Pairwise(torch.autograd.Function):
    """∂/∂v_i = g · (Σ_j v_j − v_i): half of the passes over [n, M, D] that the formula's parts would take."""

    @staticmethod
    def forward(ctx: FunctionCtx, fields: Tensor) -> Tensor:
        total = fields.sum(dim=1)
        ctx.save_for_backward(fields, total)
        return _pairwise(fields, total)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, gradient: Tensor) -> Tensor:
        fields, total = ctx.saved_tensors  # type: ignore[attr-defined]
        others: Tensor = total.unsqueeze(1) - fields
        return others.mul_(gradient.unsqueeze(1))


class PositionTower(nn.Module):
    """What the display position adds to a logit, known in training only (Guo et al. 2019, PAL, made additive).

    logit += b[position] − Σ_p f_p b[p], with f the positions' shares of the global batch. Centred, so that
    leaving the tower out when serving does not move the mean logit. Only labels on impressions have one:
    whoever has entered a room no longer sees where it was shown.

    Attributes:
        global_counts: [P] rows per position over all ranks, set before each training step, and used up by it;
            without it, the rows at hand are all there are.
    """

    def __init__(self, positions: int, on_impressions: Sequence[bool]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(positions, len(on_impressions)))
        self.register_buffer("on_impressions", torch.tensor(on_impressions, dtype=torch.float32), persistent=False)
        self.on_impressions: Tensor
        self.global_counts: Tensor | None = None

    def counts(self, position: Tensor) -> Tensor:
        """[n] ids of positions → [P] how often each occurs."""
        counts = position.new_zeros(self.weight.shape[0])  # bincount would make a GPU's host look for the largest
        return counts.scatter_add_(0, position, torch.ones_like(position))

    def forward(self, position: Tensor) -> Tensor:
        """[n] ids of positions → [n, T]."""
        weight = self.weight * self.on_impressions
        counts = self.counts(position) if self.global_counts is None else self.global_counts
        self.global_counts = None
        counts = counts.to(weight.dtype)
        return weight[position] - (counts / counts.sum()) @ weight


def unlowered(compute: Callable[..., Tensor], *arguments: Tensor) -> Tensor:
    """`compute` in float32 even where autocast lowers the rest: for terms of a logit."""
    kind = arguments[0].device.type
    if not torch.amp.is_autocast_available(kind) or not torch.is_autocast_enabled(kind):
        return compute(*arguments)
    with torch.autocast(kind, enabled=False):
        return compute(*(argument.float() for argument in arguments))


class Head(nn.Linear):
    """A linear layer whose outputs are terms of a logit."""

    def forward(self, x: Tensor) -> Tensor:
        """[…, inputs] → […, outputs]."""
        return unlowered(super().forward, x)


def head(inputs: int, *, bias: bool = True) -> Head:
    """The last layer of a tower, [n, inputs] → [n, 1], small at first so that every logit starts near 0."""
    layer = Head(inputs, 1, bias=bias)
    nn.init.normal_(layer.weight, std=INITIAL_STD)
    if bias:
        nn.init.zeros_(layer.bias)
    return layer


def gate(inputs: int, experts: int) -> nn.Linear:
    """Scores of experts, [n, inputs] → [n, experts], nearly equal at first."""
    layer = nn.Linear(inputs, experts, bias=False)
    nn.init.normal_(layer.weight, std=INITIAL_STD)
    return layer


def towers(inputs: int, widths: Sequence[int], start: Tensor, *, dropout: float, batch_norm: bool) -> nn.ModuleList:
    """One tower per element of `start`, each [n, inputs] → [n, 1], with a logit near that element at first."""

    def tower(logit: Tensor) -> nn.Sequential:
        mlp = MLP(inputs, widths, dropout=dropout, batch_norm=batch_norm)
        last = head(mlp.width)
        nn.init.constant_(last.bias, float(logit))
        return nn.Sequential(mlp, last)

    return nn.ModuleList(tower(logit) for logit in start)
