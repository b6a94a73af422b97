"""The schema file: what each column of somebody's samples is for.

columns:
  item:    {role: categorical, min_frequency: 2}
  device:  {role: categorical, hash: 1000}
  price:   {role: dense, transform: log1p}
  bought:  {role: sequence, of: item, length: 50}
  picture: {role: vector, dim: 64}
  click:   {role: label}
  buy:     {role: label, given: click}
  user:    {role: group}
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from features.errors import ConfError


class _Role(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Categorical(_Role):
    """One id per row, of integers or strings; null, and what is rarer than `min_frequency` in train, is OOV.

    Attributes:
        min_frequency: rows of train, this column and its sequences together, from which a value has an id of its own.
        hash: ids by a hash of the value into so many instead: nothing is fitted, values may collide.
        max_values: more distinct values than that stop the fit: a column of row numbers is no category.
    """

    role: Literal["categorical"]
    min_frequency: int = Field(default=1, ge=1)
    hash: int | None = Field(default=None, ge=1)
    max_values: int = Field(default=10_000_000, ge=1)


class DenseNumber(_Role):
    """A finite number, transformed, then normalised by mean and deviation of train; `missing` stands for null."""

    role: Literal["dense"]
    transform: Literal["identity", "log1p"] = "identity"
    missing: float | None = None


class SequenceOf(_Role):
    """A list of values of a categorical column, newest first, cut at `length`.

    Attributes:
        of: the categorical column whose vocabulary it shares.
        oldest_first: the file has it the other way round.
        events: columns with the same name here are fields of the same events; the column's own name by default.
    """

    role: Literal["sequence"]
    of: str
    length: int = Field(ge=1, le=10_000)
    oldest_first: bool = False
    events: str | None = None


class FixedVector(_Role):
    """A list of `dim` numbers; null is all zeros."""

    role: Literal["vector"]
    dim: int = Field(ge=1)


class TaskLabel(_Role):
    """0 or 1. With `given`, another label: it is judged where that one is 1, and ESMM's child of it."""

    role: Literal["label"]
    given: str | None = None


class Mask(_Role):
    """1 where the label `of` is judged, 0 where not."""

    role: Literal["mask"]
    of: str


class Plain(_Role):
    """`group`: of GAUC, integers or strings. `weight`: of the row, in loss and metrics. `ignore`: is not read."""

    role: Literal["group", "weight", "ignore"]


Role = Annotated[
    Categorical | DenseNumber | SequenceOf | FixedVector | TaskLabel | Mask | Plain, Field(discriminator="role")
]
R = TypeVar("R", bound=_Role)


class SampleSchema(BaseModel):
    """Every column of the files and its role; one that is not named, or is not there, stops the fit."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    columns: Mapping[str, Role] = Field(min_length=1)

    def of_role(self, kind: type[R]) -> dict[str, R]:
        """Columns of a kind, in the order of the file."""
        return {name: role for name, role in self.columns.items() if isinstance(role, kind)}

    def plain(self, role: str) -> str | None:
        """The column of the role `group` or `weight`, if there is one."""
        return next((name for name, plain in self.of_role(Plain).items() if plain.role == role), None)

    @property
    def read(self) -> list[str]:
        """Columns that are read."""
        return [name for name, role in self.columns.items() if role.role != "ignore"]

    def mask_of(self, label: str) -> str | None:
        """The column that masks a label, if there is one."""
        return next((name for name, mask in self.of_role(Mask).items() if mask.of == label), None)

    @model_validator(mode="after")
    def _roles_fit_together(self) -> Self:
        if problems := list(self._contradictions()):
            raise ValueError("; ".join(problems))
        return self

    def _contradictions(self) -> Iterator[str]:
        for kind, role in ((TaskLabel, "label"), (Categorical, "categorical")):
            if not self.of_role(kind):
                yield f"no column has the role {role}"
        for role in ("group", "weight"):
            named = sorted(name for name, plain in self.of_role(Plain).items() if plain.role == role)
            if len(named) > 1:
                yield f"{', '.join(named)}: only one column may have the role {role}"
        yield from self._contradictions_of_labels()
        yield from self._contradictions_of_sequences()

    def _contradictions_of_labels(self) -> Iterator[str]:
        labels = self.of_role(TaskLabel)
        for name, label in labels.items():
            if label.given is not None and (label.given not in labels or label.given == name):
                yield f"{name}: given={label.given!r} is not another label"
            elif label.given is not None and labels[label.given].given is not None:
                yield f"{name}: given={label.given!r}, which is given another one itself; two levels are what there is"
        masked = [mask.of for mask in self.of_role(Mask).values()]
        for name, mask in self.of_role(Mask).items():
            if mask.of not in labels:
                yield f"{name}: of={mask.of!r} is not a label"
            elif masked.count(mask.of) > 1:
                yield f"{name}: {mask.of} has more than one mask"

    def _contradictions_of_sequences(self) -> Iterator[str]:
        categorical = self.of_role(Categorical)
        for name, sequence in self.of_role(SequenceOf).items():
            if sequence.of not in categorical:
                yield f"{name}: of={sequence.of!r} is not a categorical column"
        for events, fields in self.events().items():
            lengths = {self.of_role(SequenceOf)[name].length for name in fields}
            if len(lengths) > 1:
                yield f"{', '.join(fields)}: fields of the events {events!r} have lengths {sorted(lengths)}"

    def events(self) -> dict[str, list[str]]:
        """Name of events → its columns, in the order of the file."""
        found: dict[str, list[str]] = {}
        for name, sequence in self.of_role(SequenceOf).items():
            found.setdefault(sequence.events or name, []).append(name)
        return found

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a YAML file.

        Raises:
            ConfError: no such file, no mapping, unknown roles or keys, roles that contradict each other; all at once.
        """
        if not path.is_file():
            raise ConfError(f"no schema file at {path}; docs/own-samples.md shows one")
        values: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
        if not isinstance(values, dict):
            raise ConfError(f"{path} holds a {type(values).__name__}, not a mapping with `columns`")
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            lines = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
            raise ConfError(f"schema {path}:\n" + "\n".join(lines)) from error
