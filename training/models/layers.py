"""The layers that models share.

n: rows, C: looked-up columns, D: embedding dim, L: sequence length, K: dense numbers, M: fields, T: targets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx

from features.manifest import TrainSet
from training.batch import Batch
from training.models.embedding import INITIAL_STD, EmbeddingTable

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


class BatchNorm(CrossRank):
    """Batch normalisation over all ranks' rows, on CPU and GPU alike (Ioffe & Szegedy 2015, algorithm 1).

    y = γ (x − μ) / sqrt(σ² + ε) + β, with μ and σ² of the global batch in training, and running averages
    otherwise. Sums are taken of x − running mean: the variance is then a difference of small numbers.
    """

    def __init__(self, width: int, momentum: float = 0.1, epsilon: float = 1e-5) -> None:
        super().__init__()
        self.momentum, self.epsilon = momentum, epsilon
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("variance", torch.ones(width))
        self.mean: Tensor
        self.variance: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """[n, width] → [n, width]."""
        if not self.training:
            return self._normalised(x, self.mean, self.variance)
        centred = x - self.mean
        sums = torch.cat([centred.sum(dim=0), centred.square().sum(dim=0), x.new_tensor([x.shape[0]])])
        if self.sum_across_ranks is not None:
            sums = _DifferentiableSum.apply(sums, self.sum_across_ranks)  # type: ignore[no-untyped-call]
        width, count = x.shape[1], sums[-1].detach()
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
        return (x - mean) * torch.rsqrt(variance + self.epsilon) * self.weight + self.bias


class MLP(nn.Sequential):
    """Linear → (batch norm) → ReLU → (dropout), once per width."""

    def __init__(self, inputs: int, widths: Iterable[int], *, dropout: float, batch_norm: bool) -> None:
        layers: list[nn.Module] = []
        for width in widths:
            layers.append(nn.Linear(inputs, width))
            layers += [BatchNorm(width)] if batch_norm else []
            layers.append(nn.ReLU())
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
    return 0.5 * (fields.sum(dim=1).square() - fields.square().sum(dim=1))


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
        return torch.bincount(position, minlength=self.weight.shape[0])

    def forward(self, position: Tensor) -> Tensor:
        """[n] ids of positions → [n, T]."""
        weight = self.weight * self.on_impressions
        counts = self.counts(position) if self.global_counts is None else self.global_counts
        self.global_counts = None
        counts = counts.to(weight.dtype)
        return weight[position] - (counts / counts.sum()) @ weight


class InputLayer(nn.Module):
    """From a Batch to fields in one space of dim D, and dense numbers.

    All ids, those of sequences too, are one lookup, so that the table has one sparse gradient:

    1. ids [n, F] and each sequence field [n, L] side by side      → [n, C], C = F + Σ L
    2. the shared table; a sequence field is the mean of its events → [n, F + sequence fields, D (+1)]
    3. each vector, and all dense numbers together, projected      → [n, D] each

    Attributes:
        fields: M = F + sequence fields + vectors + (1 if there are dense numbers).
        flat_width: width of `flat`.
    """

    def __init__(self, inputs: TrainSet, table: EmbeddingTable) -> None:
        super().__init__()
        self.dim = table.dim
        self._table = [table]  # in a list: the model owns it, and names it once in its state dict
        self._vectors = tuple(vector.name for vector in inputs.vectors)
        self._sequences = tuple(
            (f"{sequence.name}.{field.name}", field.vocabulary, sequence.length)
            for sequence in inputs.sequences
            for field in sequence.fields
        )
        offsets = [table.offsets[column.vocabulary] for column in inputs.categorical]
        for _, vocabulary, length in self._sequences:
            offsets += [table.offsets[vocabulary]] * length
        self.register_buffer("offsets", torch.tensor(offsets, dtype=torch.int64), persistent=False)
        self.offsets: Tensor
        self._widths = [1] * len(inputs.categorical) + [length for _, _, length in self._sequences]
        self.vectors = nn.ModuleList(_projection(vector.dim, table.dim) for vector in inputs.vectors)
        self.dense = _projection(len(inputs.dense), table.dim) if inputs.dense else None
        self.fields = len(inputs.categorical) + len(self._sequences) + len(self._vectors) + bool(inputs.dense)
        self.flat_width = self.fields * table.dim + len(inputs.dense)

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """Returns: fields [n, M, D]; the sum of the ids' linear weights [n], None if the table has none."""
        ids = torch.cat([batch.ids, *(batch.sequences[name] for name, _, _ in self._sequences)], dim=1)
        looked_up = self._table[0](ids, self.offsets, self._widths)
        fields = [looked_up[:, :, : self.dim]]
        for name, projection in zip(self._vectors, self.vectors, strict=True):
            fields.append(projection(batch.vectors[name]).unsqueeze(1))
        if self.dense is not None:
            fields.append(self.dense(batch.dense).unsqueeze(1))
        linear = looked_up[:, :, self.dim].sum(dim=1) if looked_up.shape[2] > self.dim else None
        return torch.cat(fields, dim=1), linear

    def flat(self, fields: Tensor, batch: Batch) -> Tensor:
        """Fields [n, M, D] and the dense numbers as they are, side by side: [n, flat_width]."""
        return torch.cat([fields.flatten(start_dim=1), batch.dense], dim=1)


def _projection(inputs: int, dim: int) -> nn.Linear:
    layer = nn.Linear(inputs, dim, bias=False)
    nn.init.normal_(layer.weight, std=INITIAL_STD)
    return layer


def head(inputs: int) -> nn.Linear:
    """The last layer of a tower, [n, inputs] → [n, 1], small at first so that every logit starts near 0."""
    layer = nn.Linear(inputs, 1)
    nn.init.normal_(layer.weight, std=INITIAL_STD)
    nn.init.zeros_(layer.bias)
    return layer


def towers(inputs: int, widths: Sequence[int], start: Tensor, *, dropout: float, batch_norm: bool) -> nn.ModuleList:
    """One tower per element of `start`, each [n, inputs] → [n, 1], with a logit near that element at first."""

    def tower(logit: Tensor) -> nn.Sequential:
        mlp = MLP(inputs, widths, dropout=dropout, batch_norm=batch_norm)
        last = head(mlp.width)
        nn.init.constant_(last.bias, float(logit))
        return nn.Sequential(mlp, last)

    return nn.ModuleList(tower(logit) for logit in start)
