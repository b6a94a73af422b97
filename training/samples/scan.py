"""One pass over a split: what is wrong with its values, and what is to be fitted on them.

batches of rows → per column a `Problem` with count and examples; per vocabulary how often each value occurs; per dense
column count, mean and sum of squared deviations (merged batch by batch, Chan et al. 1979); per label its classes
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from features.errors import MAX_EXAMPLES, Problem
from training.samples.files import SplitFiles, element, is_string
from training.samples.schema import Categorical, DenseNumber, FixedVector, Mask, SampleSchema, SequenceOf, TaskLabel

Floats = NDArray[np.float64]
NORMALISE = "Repair the column, or leave the rows out."


@dataclass
class Moments:
    """Count, mean and Σ(x − mean)² of what was added."""

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0

    def add(self, values: Floats) -> None:
        """Merge a batch."""
        if not len(values):
            return
        mean, squares = float(values.mean()), float(np.square(values - values.mean()).sum())
        both = self.count + len(values)
        shift = mean - self.mean
        self.squares += squares + shift * shift * self.count * len(values) / both
        self.mean += shift * len(values) / both
        self.count = both

    @property
    def deviation(self) -> float:
        """Standard deviation; 1 where all values are equal, so that dividing by it does nothing."""
        found = (self.squares / self.count) ** 0.5 if self.count else 0.0
        return found if found > 0 else 1.0


@dataclass
class Classes:
    """Judged rows of a label, and those of them that are 1."""

    judged: int = 0
    positive: int = 0


@dataclass
class Scan:
    """What a split holds."""

    split: str
    rows: int = 0
    classes: dict[str, Classes] = field(default_factory=dict)
    moments: dict[str, Moments] = field(default_factory=dict)
    counts: dict[str, pa.Table] = field(default_factory=dict)
    _faults: dict[tuple[str, str], tuple[int, list[object]]] = field(default_factory=dict)

    def fault(self, column: str, what: str, values: pa.Array, where: pa.Array) -> None:
        """Note the rows where a fault is."""
        wrong = values.filter(pc.fill_null(where, False))
        if not len(wrong):
            return
        count, examples = self._faults.get((column, what), (0, []))
        for value in wrong.slice(0, MAX_EXAMPLES).to_pylist():
            if len(examples) < MAX_EXAMPLES and str(value) not in map(str, examples):
                examples.append(value)
        self._faults[column, what] = (count + len(wrong), examples)

    def problems(self) -> list[Problem]:
        """All faults, and labels that cannot be judged."""
        found = [
            Problem(what=what, table=self.split, column=column, count=count, examples=examples, remedy=NORMALISE)
            for (column, what), (count, examples) in self._faults.items()
        ]
        if not self.rows:
            found.append(Problem(what="no row", table=self.split, remedy="Give a split that has rows."))
        return found

    def single_class(self) -> list[Problem]:
        """Labels with one class only: their AUC is undefined."""
        return [
            Problem(
                what=f"only {'ones' if seen.positive else 'zeros'} among {seen.judged:,} judged rows: AUC is undefined",
                table=self.split,
                column=label,
                remedy="Use more rows, or take the label out of the schema.",
            )
            for label, seen in self.classes.items()
            if self.rows and seen.positive in (0, seen.judged)
        ]


def scan(files: SplitFiles, schema: SampleSchema, *, fit: bool) -> Scan:
    """Look at every value of a split once; `fit`: also count values and moments."""
    found = Scan(split=files.split)
    for batch in files.batches(schema.read):
        found.rows += batch.num_rows
        columns = {name: batch.column(name) for name in schema.read}
        _numbers(found, columns, schema, fit=fit)
        _labels(found, columns, schema)
        if fit:
            _keys(found, columns, schema)
    return found


def _numbers(found: Scan, columns: Mapping[str, pa.Array], schema: SampleSchema, *, fit: bool) -> None:
    for name, dense in schema.of_role(DenseNumber).items():
        values = columns[name].cast(pa.float64())
        if dense.missing is None:
            found.fault(name, "null; give `missing` in the schema if that is right", columns[name], pc.is_null(values))
        else:
            values = pc.fill_null(values, dense.missing)
        found.fault(name, "NaN or infinity", values, pc.invert(pc.is_finite(values)))
        if dense.transform == "log1p":
            found.fault(name, "below 0, log1p is for counts and amounts", values, pc.less(values, 0.0))
        if fit:
            known = values.drop_null().to_numpy(zero_copy_only=False)
            known = known[np.isfinite(known)]
            shown = np.log1p(np.maximum(known, 0.0)) if dense.transform == "log1p" else known
            found.moments.setdefault(name, Moments()).add(shown)
    for name, vector in schema.of_role(FixedVector).items():
        lengths = pc.list_value_length(columns[name])
        found.fault(name, f"lists not of length {vector.dim}", lengths, pc.not_equal(lengths, vector.dim))
        inner = pc.list_flatten(columns[name]).cast(pa.float64())
        found.fault(name, "NaN or infinity", inner, pc.invert(pc.is_finite(inner)))
    for fields in schema.events().values():
        first, *others = (pc.fill_null(pc.list_value_length(columns[name]), 0) for name in fields)
        for name, lengths in zip(fields[1:], others, strict=True):
            found.fault(name, f"events of another number than in {fields[0]}", lengths, pc.not_equal(lengths, first))
    if (weight := schema.plain("weight")) is not None:
        values = columns[weight].cast(pa.float64())
        wrong = pc.or_(pc.invert(pc.is_finite(values)), pc.less(values, 0.0))
        found.fault(weight, "weight that is not finite or below 0", values, pc.fill_null(wrong, True))


def _labels(found: Scan, columns: Mapping[str, pa.Array], schema: SampleSchema) -> None:
    for name in (*schema.of_role(TaskLabel), *schema.of_role(Mask)):
        values = columns[name].cast(pa.float64())
        is_class = pc.or_(pc.equal(values, 0.0), pc.equal(values, 1.0))
        found.fault(name, "neither 0 nor 1", columns[name], pc.invert(pc.fill_null(is_class, False)))
    for name in schema.of_role(TaskLabel):
        is_judged = np.asarray(judged(columns, schema, name) > 0)
        is_one = np.asarray(pc.fill_null(pc.equal(columns[name].cast(pa.float64()), 1.0), False))
        seen = found.classes.setdefault(name, Classes())
        seen.judged += int(is_judged.sum())
        seen.positive += int((is_judged & is_one).sum())


def judged(columns: Mapping[str, pa.Array], schema: SampleSchema, label: str) -> Floats:
    """[n] the weight with which each row counts for a label: 0 where masked, or where what it is given is not 1."""

    def numbers(name: str) -> Floats:
        values: Floats = pc.fill_null(columns[name].cast(pa.float64()), 0.0).to_numpy(zero_copy_only=False)
        return values

    length = len(columns[label])
    weight, mask = schema.plain("weight"), schema.mask_of(label)
    counted = np.ones(length) if weight is None else numbers(weight)
    if mask is not None:
        counted = counted * numbers(mask)
    given = schema.of_role(TaskLabel)[label].given
    return counted if given is None else counted * (numbers(given) == 1.0) * (judged(columns, schema, given) > 0)


def _keys(found: Scan, columns: Mapping[str, pa.Array], schema: SampleSchema) -> None:
    """Counts of a vocabulary's values, in its column and in the sequences of it."""
    for name, categorical in schema.of_role(Categorical).items():
        if categorical.hash is not None:
            continue
        sequences = [column for column, sequence in schema.of_role(SequenceOf).items() if sequence.of == name]
        parts = [columns[name], *(pc.list_flatten(columns[column]) for column in sequences)]
        kind = key_type(columns[name].type)
        counted = pc.value_counts(pa.chunked_array([part.cast(kind).drop_null() for part in parts], type=kind))
        table = pa.table({"key": counted.field("values"), "count": counted.field("counts")})
        before = found.counts.get(name)
        if before is not None:
            summed = pa.concat_tables([before, table]).group_by("key").aggregate([("count", "sum")])
            table = pa.table({"key": summed["key"], "count": summed["count_sum"]})
        found.counts[name] = table


def key_type(kind: pa.DataType) -> pa.DataType:
    """How keys of a column are held: int64 or string."""
    inner = element(kind) or kind
    return pa.string() if is_string(inner) else pa.int64()
