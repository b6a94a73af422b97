"""What a search varies: keys of a training conf and their ranges, read from YAML and checked at once.

optim.dense.learning_rate: {low: 1.0e-4, high: 1.0e-2, log: true}
model.dropout: {low: 0.0, high: 0.5, step: 0.1}
model.hidden: {choices: [[128, 64], [400, 400]]}
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import yaml
from pydantic import Field, FiniteFloat, ValidationError, model_validator

from features.errors import ConfError, LimelightError
from features.manifest import Frozen

if TYPE_CHECKING:
    from optuna.trial import Trial

# What is measured and where it is written must be the same for all trials.
FIXED = (
    *("model.name", "model.task", "model.parent", "model.child", "early_stopping.task", "early_stopping.metric"),
    *("sampled_splits", "judge_train", "judge_test", "calibration", "tracking", "checkpoint", "device", "threads"),
)
BETWEEN = 0.382  # a place inside a range that is no round number: what must be an integer is found out


class Numbers(Frozen):
    """Numbers between two bounds, which belong to the range; integers where both are.

    Attributes:
        log: drawn evenly on a logarithmic scale.
        step: from `low` on; the upper bound must be one of the steps.
    """

    low: int | FiniteFloat
    high: int | FiniteFloat
    log: bool = False
    step: int | FiniteFloat | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _is_a_range(self) -> Self:
        if self.low >= self.high:
            raise ValueError(f"low={self.low} is not below high={self.high}")
        if self.log and self.low <= 0:
            raise ValueError(f"log: true wants low above 0, it is {self.low}")
        if self.log and self.step is not None:
            raise ValueError("log: true and step exclude each other")
        if self.step is not None:
            steps = (self.high - self.low) / self.step
            if not math.isclose(steps, round(steps), abs_tol=1e-8):
                raise ValueError(f"high={self.high} is not low={self.low} plus a whole number of steps of {self.step}")
        return self

    @property
    def whole(self) -> bool:
        """Whether it is of integers."""
        return all(isinstance(number, int) for number in (self.low, self.high, self.step or 0))

    def suggest(self, key: str, trial: Trial) -> int | float:
        """Draw one."""
        if self.whole:
            step = 1 if self.step is None else int(self.step)
            return trial.suggest_int(key, int(self.low), int(self.high), log=self.log, step=step)
        return trial.suggest_float(key, self.low, self.high, log=self.log, step=self.step)

    def value(self, drawn: Any) -> Any:
        """What goes into the conf."""
        return drawn

    def probes(self) -> list[int | float]:
        """Values to check a conf with: both bounds, and one between them."""
        if self.whole:
            return [self.low, self.high]
        return [self.low, self.high, self.low + (self.step or BETWEEN * (self.high - self.low))]


class Choices(Frozen):
    """Values of any kind, without an order. A trial knows them as JSON, as Optuna has no lists."""

    choices: tuple[Any, ...] = Field(min_length=2)

    @model_validator(mode="after")
    def _are_different(self) -> Self:
        texts = [json.dumps(choice) for choice in self.choices]
        repeated = sorted({text for text in texts if texts.count(text) > 1})
        if repeated:
            raise ValueError(f"repeated choices: {', '.join(repeated)}")
        return self

    def suggest(self, key: str, trial: Trial) -> Any:
        """Draw one."""
        return self.value(trial.suggest_categorical(key, [json.dumps(choice) for choice in self.choices]))

    def value(self, drawn: Any) -> Any:
        """What goes into the conf."""
        return json.loads(drawn)

    def probes(self) -> list[Any]:
        """Values to check a conf with: all."""
        return list(self.choices)


class SearchSpace:
    """Dotted key of a training conf → range; in the order of the keys, whatever the file's."""

    def __init__(self, ranges: Mapping[str, Numbers | Choices]) -> None:
        self.ranges = dict(sorted(ranges.items()))

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a YAML file.

        Raises:
            ConfError: no such file, no mapping, or all that is wrong with its ranges.
        """
        if not path.is_file():
            raise ConfError(f"--space: there is no {path}")
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
        if not isinstance(values, dict) or not values:
            raise ConfError(f"--space: {path} holds no mapping of dotted keys to ranges")
        ranges: dict[str, Numbers | Choices] = {}
        problems: list[str] = []
        for key, content in sorted((str(key), content) for key, content in values.items()):
            problems += _misplaced(key, list(map(str, values)))
            try:
                ranges[key] = _range(content)
            except ValidationError as error:
                problems += [f"{key}: {line}" for line in _lines(error)]
        if problems:
            raise ConfError(_told(path, problems))
        return cls(ranges)

    def document(self) -> dict[str, Any]:
        """As in the file."""
        return {key: one.model_dump(mode="json", exclude_defaults=True) for key, one in self.ranges.items()}

    def suggest(self, trial: Trial) -> dict[str, Any]:
        """Draw a value per key."""
        return {key: one.suggest(key, trial) for key, one in self.ranges.items()}

    def values(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """What a trial of a study has drawn."""
        return {key: one.value(params[key]) for key, one in self.ranges.items() if key in params}

    def check(self, conf: Mapping[str, Any], check: Callable[[dict[str, Any]], object], path: Path) -> None:
        """Try bounds and choices, one key at a time, in a conf that passes the check itself.

        Raises:
            ConfError: every key that the conf does not know, and every value that it refuses.
        """
        check(copy.deepcopy(dict(conf)))
        problems = [problem for key in self.ranges for problem in self._refused(key, conf, check)]
        if problems:
            raise ConfError(_told(path, problems))

    def _refused(self, key: str, conf: Mapping[str, Any], check: Callable[[dict[str, Any]], object]) -> Iterator[str]:
        told = set()
        for probe in self.ranges[key].probes():
            try:
                check(with_values(conf, {key: probe}))
            except LimelightError as error:
                same = str(error).replace(repr(probe), "")
                if same not in told:
                    told.add(same)
                    yield f"{key}: {error}"


def with_values(conf: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of a conf with other values at dotted keys; mappings on the way are made where there are none.

    Raises:
        ConfError: a key leads through something that is no mapping.
    """
    changed = copy.deepcopy(dict(conf))
    for key, value in values.items():
        *way, last = key.split(".")
        place = changed
        for part in way:
            if place.get(part) is None:
                place[part] = {}
            place = place[part]
            if not isinstance(place, dict):
                raise ConfError(f"{part} is no mapping, it holds {place!r}")
        place[last] = copy.deepcopy(value)
    return changed


def _range(content: Any) -> Numbers | Choices:
    kind = Choices if isinstance(content, dict) and "choices" in content else Numbers
    return kind.model_validate(content)


def _misplaced(key: str, keys: list[str]) -> Iterator[str]:
    """Keys that a search may not touch, or that overlap."""
    if any(f"{key}.".startswith(f"{fixed}.") or f"{fixed}.".startswith(f"{key}.") for fixed in FIXED):
        yield f"{key}: it is the same for all trials; set it in the training conf (--conf), or leave it out"
    for other in keys:
        if other.startswith(f"{key}."):
            yield f"{key}: {other} is a part of it; name one of the two"


def _lines(error: ValidationError) -> Iterator[str]:
    """What is wrong with a range, once per place: a number may be an integer or not, and pydantic tells of both."""
    seen = set()
    for detail in error.errors():
        place = ".".join(str(part) for part in detail["loc"][:1])
        if place in seen:
            continue
        seen.add(place)
        if detail["type"] == "value_error":
            yield str(detail["ctx"]["error"])
        elif detail["type"] == "extra_forbidden":
            yield f"{place} is unknown; a range has low, high, log and step, or choices"
        elif place:
            yield f"{place}={detail['input']!r}: {detail['msg']}"
        else:
            yield f"{detail['input']!r} is no range; write {{low: …, high: …}} or {{choices: […]}}"


def _told(path: Path, problems: list[str]) -> str:
    return f"--space {path}:\n" + "\n".join(problems)
