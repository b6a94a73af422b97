"""What a model would lose without a group of inputs: AUC with the group's values permuted among rows.

    1. rows of a split, encoded                     ids [n, F], dense [n, K], sequences [n, L], vectors [n, dim]
    2. score them                                   AUC per target
    3. per repeat one permutation of the rows; per group, its columns taken in that order together, all others left
    4. score again                                  loss = AUC − AUC permuted, per group, target and repeat

(Breiman: "Random forests", Machine Learning 45, 2001; model-agnostic as in Fisher, Rudin, Dominici, JMLR 20, 2019.)
A loss is of this model: another one may read the same from a group that goes with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from features.manifest import ROW_ID_COLUMN, TrainSet, label_column, mask_column, sequence_column, vector_column
from training.batch import Batch
from training.exchange import SingleExchange
from training.export import serving_batch
from training.metrics import Judged, evaluate
from training.modeling.base import RankingModel
from training.scorer import DENSE, IDS, graph_inputs, row_slices

ROWS_AT_ONCE = 8192
Array = NDArray[np.generic]


@dataclass(frozen=True, kw_only=True)
class Group:
    """Inputs that are permuted together.

    Attributes:
        name: of a column, or of a kind: "all categorical".
        kind: categorical, dense, sequence, vector or leaf.
        parts: (graph input, its column; None for all of it).
    """

    name: str
    kind: str
    parts: tuple[tuple[str, int | None], ...]


@dataclass(frozen=True, kw_only=True)
class Loss:
    """Loss of AUC of one target in each repeat; empty where AUC is undefined."""

    group: Group
    target: str
    losses: tuple[float, ...]


def groups_of(trainset: TrainSet) -> list[Group]:
    """Every column (a sequence with all its fields, the leaves of all trees as one), and every kind with several."""
    found = [
        Group(name=field.name, kind="categorical", parts=((IDS, place),))
        for place, field in enumerate(trainset.categorical)
        if field.kind != "leaf"
    ]
    found += [Group(name=f.name, kind="dense", parts=((DENSE, place),)) for place, f in enumerate(trainset.dense)]
    found += [Group(name=v.name, kind="vector", parts=((vector_column(v.name), None),)) for v in trainset.vectors]
    for sequence in trainset.sequences:
        fields = tuple((sequence_column(sequence.name, field.name), None) for field in sequence.fields)
        found.append(Group(name=sequence.name, kind="sequence", parts=fields))
    kinds = {kind: [group for group in found if group.kind == kind] for kind in dict.fromkeys(g.kind for g in found)}
    whole = [
        Group(name=f"all {kind}", kind=kind, parts=tuple(part for group in members for part in group.parts))
        for kind, members in kinds.items()
        if len(members) > 1
    ]
    leaves = tuple((IDS, place) for place, field in enumerate(trainset.categorical) if field.kind == "leaf")
    return [*found, *([Group(name="all leaves", kind="leaf", parts=leaves)] if leaves else []), *whole]


class Explained:
    """A model and the rows that it is asked about.

    Attributes:
        auc: target → AUC of the rows as they are, None where undefined.
    """

    def __init__(self, model: RankingModel, trainset: TrainSet, rows: pa.Table) -> None:
        """
        Args:
            model: in evaluation mode, on CPU.
            rows: encoded.
        """
        self.model, self.trainset = model, trainset
        self._dtype = next(model.parameters()).dtype
        self._inputs: dict[str, Array] = dict(graph_inputs(rows, trainset))
        supervision = [(task.name, label_column(task.name), mask_column(task.name)) for task in trainset.tasks]
        batch = replace(
            serving_batch(self._tensors({name: value[:0] for name, value in self._inputs.items()}), trainset),
            labels=torch.tensor(np.stack([rows[label].to_numpy() for _, label, _ in supervision], axis=1)),
            label_mask=torch.tensor(np.stack([rows[mask].to_numpy() for _, _, mask in supervision], axis=1)),
        )
        self._labels, self._weights = model.targets(batch)
        self._row_id = torch.tensor(rows[ROW_ID_COLUMN].to_numpy())
        self.auc = self._auc(self._inputs)

    def losses(
        self, groups: Sequence[Group], *, repeats: int, seed: int, done: Callable[[Group], None]
    ) -> Iterator[Loss]:
        """Losses of each group, target by target; `done` is called after each scoring."""
        orders = [np.random.default_rng([seed, repeat]).permutation(len(self._row_id)) for repeat in range(repeats)]
        for group in groups:
            found: dict[str, list[float]] = {target: [] for target in self.model.tasks}
            for order in orders:
                permuted = self._auc(permute(self._inputs, group, order))
                for target, whole in self.auc.items():
                    other = permuted[target]
                    if whole is not None and other is not None:
                        found[target].append(whole - other)
                done(group)
            for target, losses in found.items():
                yield Loss(group=group, target=target, losses=tuple(losses))

    def _auc(self, inputs: Mapping[str, Array]) -> dict[str, float | None]:
        scores = self._scores(inputs)
        found = {}
        for place, target in enumerate(self.model.tasks):
            rows = Judged(
                score=scores[:, place],
                label=self._labels[:, place],
                weight=self._weights[:, place],
                group=self._row_id,
            )
            found[target] = evaluate(rows, SingleExchange()).auc
        return found

    @torch.no_grad()
    def _scores(self, inputs: Mapping[str, Array]) -> Tensor:
        """[n, T] probabilities, in float64 as in training.evaluation."""
        scored = []
        for part in row_slices(dict(inputs), ROWS_AT_ONCE):
            batch: Batch = serving_batch(self._tensors(part), self.trainset).to("cpu", self._dtype)
            scored.append(self.model.probabilities(self.model(batch).double()))
        return torch.cat(scored)

    @staticmethod
    def _tensors(inputs: Mapping[str, Array]) -> dict[str, Tensor]:
        return {name: torch.tensor(value) for name, value in inputs.items()}


def permute(inputs: Mapping[str, Array], group: Group, order: NDArray[np.int64]) -> dict[str, Array]:
    """The inputs with a group's columns taken in another order of rows; the others are not copied."""
    changed = dict(inputs)
    for name, column in group.parts:
        if column is None:
            changed[name] = inputs[name][order]
        else:
            if changed[name] is inputs[name]:
                changed[name] = inputs[name].copy()
            changed[name][:, column] = inputs[name][order, column]
    return changed
