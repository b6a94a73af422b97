"""What every ranking model is: inputs from a Batch, one logit per target, and where targets come from."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Annotated, Any, TypeVar

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor, nn

from features.errors import ConfError, DataError, Problem
from features.manifest import Frozen, Task, TrainSet
from training.batch import Batch
from training.calibration import CalibrationLayer
from training.modeling.embedding import EmbeddingTable
from training.modeling.inputs import Embedded, InputLayer
from training.modeling.layers import CrossRank, PositionTower, SumAcrossRanks
from training.modeling.sampling import Sampling


class ModelConf(BaseModel):
    """Settings that every model has.

    Attributes:
        embedding_dim: D, columns per id.
        dropout: share of hidden units dropped in training.
        batch_norm: normalise hidden layers by statistics of the whole global batch.
        task_weights: task → its factor in the loss; 1 where absent.
        negatives_kept: task → share w of its negatives that the train rows still have; 1 where absent. Probabilities
            are corrected for the others.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    embedding_dim: int = Field(default=16, ge=1, le=1024)
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    batch_norm: bool = False
    task_weights: Mapping[str, float] = Field(default_factory=dict)
    negatives_kept: Mapping[str, Annotated[float, Field(gt=0.0, le=1.0)]] = Field(default_factory=dict)


class Target(Frozen):
    """What one logit predicts: that ALL of these labels are 1.

    A conjunction is judged on the space of its first label. With labels y₁…y_k and weights m₁…m_k:
    y = Π yᵢ, and m = Π mᵢ over the labels up to and including the first that is 0 (all of them if none is):
    once a label has failed, those after it are not needed to know that the conjunction has.

    Attributes:
        name: of the predicted task, in metrics and in the exported graph.
        all_of: labels of the train set; one for a plain task.
        trained: whether it has a loss of its own.
    """

    name: str
    all_of: tuple[str, ...] = Field(min_length=1)
    trained: bool = True


class RankingModel(nn.Module, ABC):
    """A model over a train set.

    Subclasses build their layers, and give `forward`. The display position adds to the logits of labels on
    impressions when it is known, which is in training only.

    Attributes:
        targets_of: one per logit, in order.
        tasks: their names.
        table: the shared embedding table, with sparse gradients.
        input: from Batch to fields and dense numbers.
        calibration: of the probabilities, once it was fitted.
    """

    auxiliary_weight: float = 0.0
    _compiled: Callable[[Tensor, Batch], tuple[Tensor, Tensor | None]] | None = None

    def __init__(
        self,
        inputs: TrainSet,
        conf: ModelConf,
        targets: Iterable[Target],
        *,
        linear: bool = False,
        by_event: bool = False,
    ) -> None:
        """
        Args:
            inputs: the train set.
            conf: the model's settings.
            targets: what each logit predicts.
            linear: whether ids have a linear weight besides their embedding.
            by_event: whether sequences come event by event instead of pooled.

        Raises:
            ConfError: if `conf.task_weights` names a task that the model does not train, or `conf.negatives_kept` one
                that it cannot correct.
        """
        super().__init__()
        self.targets_of = tuple(targets)
        self.tasks = tuple(target.name for target in self.targets_of)
        trained = {target.name for target in self.targets_of if target.trained}
        if unknown := sorted(set(conf.task_weights) - trained):
            raise ConfError(f"model.task_weights names {', '.join(unknown)}; this model trains {', '.join(trained)}")
        self._columns = {task.name: column for column, task in enumerate(inputs.tasks)}
        self.table = EmbeddingTable(inputs, conf.embedding_dim, linear=linear)
        self.input = InputLayer(inputs, self.table, by_event=by_event)
        weights = [conf.task_weights.get(t.name, 1.0) if t.trained else 0.0 for t in self.targets_of]
        self.register_buffer("task_weights", torch.tensor(weights), persistent=False)
        self.task_weights: Tensor
        self.position: PositionTower | None = None
        self._sampling = Sampling({target.name: target.all_of for target in self.targets_of}, conf.negatives_kept)
        self.calibration: CalibrationLayer | None = None
        self._dense_dtype: torch.dtype | None = None

    def add_position_tower(self, inputs: TrainSet, tasks: Iterable[Task]) -> None:
        """Give the logits of these tasks a position tower, if the train set has positions."""
        if inputs.positions is not None:
            self.position = PositionTower(inputs.positions, [task.space == "impressions" for task in tasks])

    def with_position(self, logits: Tensor, batch: Batch) -> Tensor:
        """Logits [n, T] plus the effect of the display position, where it is known."""
        if self.position is None or batch.position is None:
            return logits
        effect: Tensor = self.position(batch.position)
        return logits + effect

    def forward(self, batch: Batch) -> Tensor:
        """Rows → logits [n, T_model], in the order of `tasks`."""
        return self.with_auxiliary(batch)[0]

    def with_auxiliary(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """Rows → logits [n, T_model], and this rank's sum of a loss that is not about labels; None without one."""
        looked_up = self.input.look_up(batch)
        after_lookup = self._dense_of_batch if self._compiled is None or not self.training else self._compiled
        with self._lowered(looked_up.device):
            logits, auxiliary = after_lookup(looked_up, batch)
        auxiliary = None if auxiliary is None else auxiliary.to(looked_up.dtype)
        return self.with_position(logits.to(looked_up.dtype), batch), auxiliary

    @abstractmethod
    def dense(self, row: Embedded) -> tuple[Tensor, Tensor | None]:
        """Embedded rows → logits [n, T_model] without the effect of positions, and the sum of `with_auxiliary`."""

    def lower(self, dtype: torch.dtype) -> None:
        """Compute the dense part in fewer bits where it trains: products of matrices, not sums, logits or weights."""
        self._dense_dtype = dtype

    def compile_dense(self, backend: str = "inductor") -> None:
        """Have all that follows the lookup compiled where it trains, once per shape, when it is first needed."""
        self._compiled = torch.compile(self._dense_of_batch, backend=backend)

    def __getstate__(self) -> dict[str, Any]:
        """A copy is compiled anew: what was compiled reads the weights of this model."""
        state: dict[str, Any] = super().__getstate__()  # type: ignore[no-untyped-call]
        return {name: value for name, value in state.items() if name != "_compiled"}

    def _dense_of_batch(self, looked_up: Tensor, batch: Batch) -> tuple[Tensor, Tensor | None]:
        return self.dense(self.input.embedded(looked_up, batch))

    def _lowered(self, device: torch.device) -> AbstractContextManager[object]:
        if self._dense_dtype is None or not self.training:
            return nullcontext()
        return torch.autocast(device.type, self._dense_dtype)

    def auxiliary_terms(self, batch: Batch) -> Tensor:
        """[] how many terms that sum has; known before `with_auxiliary`, so that ranks can count together."""
        return batch.label_mask.new_zeros(())

    def targets(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Labels and weights of each target.

        Returns:
            labels [n, T_model] 0 or 1, weights [n, T_model] with 0 = masked.
        """
        labels, weights = zip(*(self._target(target, batch) for target in self.targets_of), strict=True)
        return torch.stack(labels, dim=1), torch.stack(weights, dim=1)

    def _target(self, target: Target, batch: Batch) -> tuple[Tensor, Tensor]:
        first = self._columns[target.all_of[0]]
        label, weight = batch.labels[:, first], batch.label_mask[:, first]
        for name in target.all_of[1:]:
            column = self._columns[name]
            weight = torch.where(label > 0, weight * batch.label_mask[:, column], weight)
            label = label * batch.labels[:, column]
        return label, weight

    def probabilities(self, logits: Tensor) -> Tensor:
        """Logits [n, T_model] → probabilities [n, T_model], corrected for negatives left out, then calibrated."""
        corrected: Tensor = self._sampling(logits)
        if self.calibration is None:
            return corrected
        smallest = torch.finfo(logits.dtype).eps
        calibrated: Tensor = self.calibration(torch.logit(corrected, smallest) if self._sampling.corrects else logits)
        return calibrated

    def rows_before_sampling(self, batch: Batch) -> Tensor:
        """[n, T_model] how many rows there were before sampling for each that is there."""
        firsts = [self._columns[target.all_of[0]] for target in self.targets_of]
        return self._sampling.rows(batch.labels[:, firsts])

    def synchronise(self, sum_across_ranks: SumAcrossRanks | None) -> None:
        """Make the layers that use statistics of the batch use those of the whole global batch."""
        for module in self.modules():
            if isinstance(module, CrossRank):
                module.sum_across_ranks = sum_across_ranks

    def dense_parameters(self) -> list[nn.Parameter]:
        """Every parameter but the embedding table, in a fixed order."""
        return [parameter for parameter in self.parameters() if parameter is not self.table.weight]

    def regularised_parameters(self) -> list[nn.Parameter]:
        """Those dense parameters that L1 and L2 are about: weights of two or more dimensions.

        Not biases, batch norm's scale and shift, Dice's and PReLU's slopes, and not the position tower, which holds
        one bias per position.
        """
        biases = set() if self.position is None else set(self.position.parameters())
        return [p for p in self.dense_parameters() if p.dim() > 1 and p not in biases]


def base_logits(inputs: TrainSet, tasks: Iterable[Task]) -> Tensor:
    """[T] log-odds of each task among its judged train rows; 0 where the train set does not say.

    A tower that starts there need not spend its first steps on the mean of a rare label, and does not overshoot it.
    """
    train = inputs.splits.get("train")
    logits = []
    for task in tasks:
        positives = train.positives.get(task.name, 0) if train else 0
        negatives = (train.judged.get(task.name, 0) if train else 0) - positives
        logits.append(math.log(positives / negatives) if positives > 0 and negatives > 0 else 0.0)
    return torch.tensor(logits)


def usable_tasks(inputs: TrainSet, wanted: Iterable[str] | None = None) -> tuple[Task, ...]:
    """Tasks of the train set that were not left out; `wanted` asks for exactly those, in that order.

    Raises:
        DataError: if a wanted task is unknown or was left out, or if none remains.
    """
    usable = {task.name: task for task in inputs.tasks if task.name not in inputs.left_out}
    if wanted is None:
        if usable:
            return tuple(usable.values())
        reasons = tuple(f"{name}: {reason}" for name, reason in inputs.left_out.items())
        raise DataError([Problem(what="every task was left out", remedy="Use more days.", examples=reasons)])
    names = tuple(wanted)
    problems = [
        Problem(
            what=f"task {name!r} was left out" if name in inputs.left_out else f"task {name!r} is not in the train set",
            remedy="Name another task in the model's conf, or build the train set with more of its rows.",
            table=inputs.name,
            examples=(inputs.left_out[name],) if name in inputs.left_out else sorted(usable),
        )
        for name in names
        if name not in usable
    ]
    if problems:
        raise DataError(problems)
    return tuple(usable[name] for name in names)


Maker = TypeVar("Maker", bound=Callable[..., RankingModel])

_REGISTRY: dict[str, tuple[Callable[[TrainSet, Any], RankingModel], type[ModelConf]]] = {}


def register(name: str, conf: type[ModelConf]) -> Callable[[Maker], Maker]:
    """Decorator of a class: make a model known to `build` under a name, with the class of its settings."""

    def add(model: Maker) -> Maker:
        if name in _REGISTRY:
            raise ValueError(f"two models are registered as {name!r}")
        _REGISTRY[name] = (model, conf)
        return model

    return add


def registered() -> Mapping[str, tuple[Callable[[TrainSet, Any], RankingModel], type[ModelConf]]]:
    """Models known so far: name → (constructor, conf class)."""
    return _REGISTRY


def validated(name: str, conf_type: type[ModelConf], conf: Mapping[str, object]) -> ModelConf:
    """Check a model's settings, all of them at once.

    Raises:
        ConfError: naming each key, its value and what is wrong.
    """
    try:
        return conf_type.model_validate(dict(conf))
    except ValidationError as error:
        lines = [
            f"model.{'.'.join(map(str, e['loc']))}={e['input']!r}: {e['msg']} (model {name})" for e in error.errors()
        ]
        raise ConfError("\n".join(lines)) from error
