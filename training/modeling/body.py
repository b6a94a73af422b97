"""Ranking bodies: what a model makes of a row before its towers, so that one task or many can sit on it.

batch → InputLayer → Embedded → Body      hidden numbers [n, H], and a logit of its own [n, 1]
one task      own logit + ⟨w, hidden⟩ + b                 `OneTask`, under the body's own name
many tasks    towers over hidden ∥ own logit              models that derive from `ManyTasks`
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, ClassVar, NamedTuple, TypeVar

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from features.errors import ConfError
from features.manifest import Task, TrainSet
from training.batch import Batch
from training.modeling.base import ModelConf, RankingModel, Target, base_logits, register, usable_tasks, validated
from training.modeling.inputs import Embedded, InputLayer
from training.modeling.layers import MLP, ActivationName, head


class Represented(NamedTuple):
    """What a body makes of rows.

    Attributes:
        hidden: [n, H]; H may be 0.
        logit: [n, 1] terms of the logit that no tower changes; None where the body has none.
        auxiliary: [] this rank's sum of a loss of the body's own; None where it has none, and in evaluation.
    """

    hidden: Tensor
    logit: Tensor | None = None
    auxiliary: Tensor | None = None


class Body(nn.Module, ABC):
    """Embedded rows → `Represented`. Subclasses build their layers from an input layer and their conf.

    Attributes:
        linear: whether ids have a linear weight.
        by_event: whether sequences come event by event instead of pooled.
        has_logit: whether there is a logit of its own.
        auxiliary_weight: factor of the mean of the auxiliary loss.
        width: H.
    """

    linear: ClassVar[bool] = False
    by_event: ClassVar[bool] = False
    has_logit: ClassVar[bool] = False
    auxiliary_weight: float = 0.0

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    @abstractmethod
    def forward(self, row: Embedded) -> Represented:
        """Rows → hidden numbers and a logit."""

    def auxiliary_terms(self, batch: Batch) -> Tensor:
        """[] how many terms the auxiliary loss of these rows sums up."""
        return batch.label_mask.new_zeros(())


class RankConf(ModelConf):
    """Attributes: the one task; the first that the train set has if None."""

    task: str | None = None


B = TypeVar("B", bound=Body)
_BODIES: dict[str, tuple[type[Body], Callable[[InputLayer, Any], Body], type[RankConf]]] = {}


def register_body(name: str, conf: type[RankConf]) -> Callable[[type[B]], type[B]]:
    """Class decorator: a body, and the model of one task over it, become known under a name."""

    def add(body: type[B]) -> type[B]:
        if name in _BODIES:
            raise ValueError(f"two bodies are registered as {name!r}")
        _BODIES[name] = (body, body, conf)
        register(name, conf)(partial(OneTask, name))
        return body

    return add


def deep_network(
    layer: InputLayer, hidden: Sequence[int], conf: ModelConf, activated_by: ActivationName = "relu"
) -> MLP:
    """The network over all inputs side by side that most bodies have: [n, M·D + K] → [n, last of `hidden`]."""
    return MLP(layer.flat_width, hidden, dropout=conf.dropout, batch_norm=conf.batch_norm, activated_by=activated_by)


class Embeddings(Body):
    """The plain body: hidden = [v_1, …, v_M, dense], for towers that do all the work themselves.

    Covington, Adams, Sargin: "Deep Neural Networks for YouTube Recommendations", RecSys 2016, the input of fig. 7.
    """

    def __init__(self, layer: InputLayer, _conf: RankConf) -> None:
        super().__init__(layer.flat_width)

    def forward(self, row: Embedded) -> Represented:
        """Rows → hidden [n, M·D + K]."""
        return Represented(row.flat)


_BODIES["embeddings"] = (Embeddings, Embeddings, RankConf)


class OverBody(RankingModel):
    """A model over a body: subclasses build towers on `width` numbers, and give `scored`."""

    def __init__(
        self, body: str, inputs: TrainSet, conf: ModelConf, body_conf: ModelConf, targets: Iterable[Target]
    ) -> None:
        kind, make, _ = _BODIES[body]
        super().__init__(inputs, conf, targets, linear=kind.linear, by_event=kind.by_event)
        self.body = make(self.input, body_conf)
        self.auxiliary_weight = self.body.auxiliary_weight

    @abstractmethod
    def scored(self, represented: Represented) -> Tensor:
        """What the body made of rows → logits [n, T], without the effect of positions."""

    def dense(self, row: Embedded) -> tuple[Tensor, Tensor | None]:
        """Embedded rows → logits [n, T] without the effect of positions, and this rank's sum of the body's own loss."""
        represented = self.body(row)
        return self.scored(represented), represented.auxiliary

    def auxiliary_terms(self, batch: Batch) -> Tensor:
        """[] terms of that sum."""
        return self.body.auxiliary_terms(batch)


class OneTask(OverBody):
    """A linear layer over what a body hides, and the body's own logit."""

    def __init__(self, body: str, inputs: TrainSet, conf: RankConf) -> None:
        tasks = usable_tasks(inputs, None if conf.task is None else [conf.task])[:1]
        super().__init__(body, inputs, conf, conf, [Target(name=task.name, all_of=(task.name,)) for task in tasks])
        self.head = head(self.body.width, bias=False) if self.body.width else None
        self.bias = nn.Parameter(base_logits(inputs, tasks))
        self.add_position_tower(inputs, tasks)

    def scored(self, represented: Represented) -> Tensor:
        """→ [n, 1]."""
        logits = self.bias.expand(len(represented.hidden), 1)
        if represented.logit is not None:
            logits = logits + represented.logit
        return logits if self.head is None else logits + self.head(represented.hidden)


class BodyChoice(BaseModel):
    """Which body a model of many tasks sits on; every other key belongs to the body's own conf class."""

    model_config = ConfigDict(frozen=True, extra="allow")

    name: str = "embeddings"


class ManyTasksConf(ModelConf):
    """Attributes: tasks (all that the train set has, if empty), and the body below the towers."""

    tasks: tuple[str, ...] = ()
    body: BodyChoice = BodyChoice()


class ManyTasks(OverBody):
    """Towers over hidden ∥ own logit of a body.

    Attributes:
        tasks_of: the tasks, in order.
        width: of what the towers sit on.
    """

    def __init__(
        self, inputs: TrainSet, conf: ManyTasksConf, tasks: tuple[Task, ...], targets: Iterable[Target] | None = None
    ) -> None:
        plain = [Target(name=task.name, all_of=(task.name,)) for task in tasks]
        own = _conf_of_body(conf)
        super().__init__(conf.body.name, inputs, conf, own, plain if targets is None else targets)
        self.width = self.body.width + self.body.has_logit
        if not self.width:
            raise ConfError(f"model.body.name={conf.body.name!r} gives towers nothing to sit on")
        self.add_position_tower(inputs, tasks)

    def scored(self, represented: Represented) -> Tensor:
        """→ [n, T]."""
        if represented.logit is None:
            return self.towered(represented.hidden)
        return self.towered(torch.cat([represented.hidden, represented.logit], dim=1))

    @abstractmethod
    def towered(self, shared: Tensor) -> Tensor:
        """[n, width] → logits [n, T]."""


def _conf_of_body(conf: ManyTasksConf) -> ModelConf:
    """The conf of the body: its own keys, and what the whole model says of all layers.

    Raises:
        ConfError: no such body, or keys that belong to the model.
    """
    choice = conf.body
    if choice.name not in _BODIES:
        raise ConfError(f"model.body.name={choice.name!r} is unknown; choose one of {', '.join(sorted(_BODIES))}")
    keys = choice.model_extra or {}
    ours = {"embedding_dim", "task", "task_weights", "negatives_kept"}
    if wrong := sorted(ours & keys.keys()):
        raise ConfError(f"model.body has {', '.join(wrong)}: give these to the model, not to its body")
    whole = {"embedding_dim": conf.embedding_dim, "dropout": conf.dropout, "batch_norm": conf.batch_norm}
    return validated(f"body {choice.name}", _BODIES[choice.name][2], whole | keys)
