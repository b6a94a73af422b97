"""The catalog as a table of columns: the one place where names, types and order of samples are decided."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from features import catalog
from features.errors import CatalogError
from features.spec import (
    Buckets,
    DType,
    Entity,
    Feature,
    Ids,
    Label,
    Position,
    RoomField,
    SequenceFeature,
    WindowOp,
    canonical,
    fingerprint,
)

LOCK_FILE = Path(__file__).parent / "catalog.lock.json"

KEY_COLUMNS: Mapping[str, str] = {
    "impression_id": "bigint",
    "user_id": "bigint",
    "anchor_id": "bigint",
    "room_id": "bigint",
    "ts": "timestamp",
    "dt": "date",
}


def label_name(task: str) -> str:
    """Sample column: int, 0 or 1 (0 where masked)."""
    return f"label_{task}"


def mask_name(task: str) -> str:
    """Sample column: int, 1 where the task is judged, 0 where it is masked."""
    return f"mask_{task}"


def sequence_name(sequence: str, field: str) -> str:
    """Sample column: ragged array, newest first; the fields of one sequence are aligned."""
    return f"{sequence}_{field}"


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column of the samples: `sql_type` is Spark SQL's spelling."""

    name: str
    sql_type: str


@dataclass(frozen=True, kw_only=True)
class Catalog:
    """A checked set of declarations.

    Raises:
        CatalogError: names every contradiction at once.
    """

    features: tuple[Feature, ...]
    sequences: tuple[SequenceFeature, ...]
    labels: tuple[Label, ...]

    def __post_init__(self) -> None:
        problems = [*self._repeated_names(), *self._vocabulary_clashes(), *self._unknown_parents()]
        if problems:
            raise CatalogError("; ".join(problems))

    def _repeated_names(self) -> Iterable[str]:
        reserved = set(KEY_COLUMNS) - {"user_id", "anchor_id"}
        names = Counter(feature.name for feature in self.features)
        names.update(sequence_name(s.name, f.name) for s in self.sequences for f in s.fields)
        for name, times in names.items():
            if times > 1 or name in reserved:
                yield f"feature name {name!r} is taken"

    def _vocabulary_clashes(self) -> Iterable[str]:
        frequencies: dict[str, set[int]] = {}
        for encoding in self._encodings():
            if isinstance(encoding, Ids):
                frequencies.setdefault(encoding.vocabulary, set()).add(encoding.min_frequency)
        for vocabulary, values in frequencies.items():
            if len(values) > 1:
                yield f"vocabulary {vocabulary!r} is declared with minimum frequencies {sorted(values)}"

    def _unknown_parents(self) -> Iterable[str]:
        tasks = {label.name for label in self.labels}
        for label in self.labels:
            if label.parent is not None and label.parent not in tasks:
                yield f"label {label.name!r} has the unknown parent {label.parent!r}"

    def _encodings(self) -> Iterable[object]:
        yield from (feature.encoding for feature in self.features)
        yield from (field.encoding for sequence in self.sequences for field in sequence.fields)

    def of_entity(self, entity: Entity) -> tuple[Feature, ...]:
        """Features of one entity, in catalog order."""
        return tuple(feature for feature in self.features if feature.entity is entity)

    def windows(self, entity: Entity) -> tuple[Feature, ...]:
        """As-of window features of one entity."""
        return tuple(feature for feature in self.of_entity(entity) if isinstance(feature.op, WindowOp))

    def max_days(self) -> int:
        """The longest window or sequence age, in days."""
        windows = (feature.days or 0 for feature in self.features)
        return max((*windows, *(sequence.max_age_days for sequence in self.sequences)), default=0)

    def key_column(self, key: str) -> str:
        """Column of the samples that holds a key of profiles: a key of the samples themselves, or a field of the room.

        Raises:
            CatalogError: no feature holds it.
        """
        if key in KEY_COLUMNS:
            return key
        for feature in self.features:
            if feature.op == RoomField(column=key):
                return feature.name
        raise CatalogError(
            f"profiles are keyed by {key!r}: declare a feature of Entity.ROOM with RoomField(column={key!r})"
        )

    def sample_columns(self) -> tuple[Column, ...]:
        """Columns of the samples: keys, features, sequences, labels with masks."""
        keys = [Column(name=name, sql_type=sql_type) for name, sql_type in KEY_COLUMNS.items()]
        values = [
            Column(name=feature.name, sql_type=feature.dtype.value)
            for feature in self.features
            if feature.name not in KEY_COLUMNS
        ]
        sequences = [
            Column(name=sequence_name(sequence.name, field.name), sql_type=f"array<{field.dtype.value}>")
            for sequence in self.sequences
            for field in sequence.fields
        ]
        labels = [
            Column(name=name, sql_type="int")
            for label in self.labels
            for name in (label_name(label.name), mask_name(label.name))
        ]
        return (*keys, *values, *sequences, *labels)

    def sample_meanings(self) -> dict[str, str]:
        """Column of the samples beyond the keys → fingerprint of what decides its values, in the order of the columns.

        Neither its name nor its encoding does: samples are unencoded. Labels are decided together, as an action of
        one may imply the enter of all.
        """
        of_features = {
            feature.name: fingerprint(
                (feature.entity, feature.op, feature.dtype, feature.default, self._beside(feature))
            )
            for feature in self.features
            if feature.name not in KEY_COLUMNS
        }
        of_sequences = {
            sequence_name(sequence.name, field.name): fingerprint(
                (sequence.action, sequence.length, sequence.max_age_days, field.source)
            )
            for sequence in self.sequences
            for field in sequence.fields
        }
        tasks = fingerprint(tuple(sorted(self.labels, key=lambda label: label.name)))
        of_labels = {name: tasks for label in self.labels for name in (label_name(label.name), mask_name(label.name))}
        return of_features | of_sequences | of_labels

    def _beside(self, feature: Feature) -> tuple[object, ...]:
        """What else decides a feature's values.

        Between rows of a room of the same instant its fields decide, in catalog order; and a profile that is keyed by
        a field of the room is found by what that field holds.
        """
        if isinstance(feature.op, RoomField):
            return tuple((other.op, other.dtype) for other in self.features if isinstance(other.op, RoomField))
        if not isinstance(feature.op, WindowOp):
            return ()
        names = {self.key_column(key) for key in feature.entity.keys}
        held = [other for other in self.features if other.name in names and isinstance(other.op, RoomField)]
        return tuple((other.op, other.dtype, other.default, self._beside(other)) for other in held)

    def only(self, columns: Container[str]) -> Catalog:
        """The declarations that these columns of the samples come from; labels are there all or none."""
        sequences = (
            replace(s, fields=tuple(f for f in s.fields if sequence_name(s.name, f.name) in columns))
            for s in self.sequences
        )
        wants_labels = any(
            name in columns for label in self.labels for name in (label_name(label.name), mask_name(label.name))
        )
        return Catalog(
            features=tuple(feature for feature in self.features if feature.name in columns),
            sequences=tuple(sequence for sequence in sequences if sequence.fields),
            labels=self.labels if wants_labels else (),
        )

    def vocabularies(self) -> dict[str, int]:
        """Vocabulary name → minimum frequency, in order of first use; bucketed features are not in it."""
        found: dict[str, int] = {}
        for encoding in self._encodings():
            if isinstance(encoding, Ids):
                found.setdefault(encoding.vocabulary, encoding.min_frequency)
        return found

    def position(self) -> Feature | None:
        """The display position, if the catalog has one."""
        return next((feature for feature in self.features if isinstance(feature.encoding, Position)), None)

    def fingerprint(self) -> str:
        """Changes when any declaration changes its meaning."""
        return fingerprint((self.features, self.sequences, self.labels))

    def fingerprints(self) -> dict[str, str]:
        """Feature, sequence or label → fingerprint of its declaration; says which of them changed."""
        named: list[Feature | SequenceFeature | Label] = [*self.features, *self.sequences, *self.labels]
        return {entry.name: fingerprint(entry) for entry in named}

    def lock(self) -> dict[str, object]:
        """What `catalog.lock.json` holds: its diff is what a reviewer reads."""
        return {
            "fingerprint": self.fingerprint(),
            "features": {
                feature.name: {
                    "dtype": feature.dtype.value,
                    "fingerprint": fingerprint(feature),
                    "meaning": canonical(feature.op),
                    "encoding": canonical(feature.encoding),
                }
                for feature in self.features
            },
            "sequences": {s.name: {"length": s.length, "fingerprint": fingerprint(s)} for s in self.sequences},
            "labels": {label.name: {"fingerprint": fingerprint(label)} for label in self.labels},
        }


def load_catalog() -> Catalog:
    """The catalog of this installation."""
    return Catalog(features=catalog.FEATURES, sequences=catalog.SEQUENCES, labels=catalog.LABELS)


def bucket_vocabulary(name: str) -> str:
    """Name of the vocabulary of a bucketed feature: its own, shared with nothing."""
    return f"bucket:{name}"


def bucket_count(encoding: Buckets) -> int:
    """Ids of a bucketed feature: padding, OOV, and one per bucket."""
    return len(encoding.boundaries) + 3


def lock_text(current: Catalog) -> str:
    """The text of the lock file."""
    return json.dumps(current.lock(), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    LOCK_FILE.write_text(lock_text(load_catalog()), encoding="utf-8")


__all__ = ["KEY_COLUMNS", "Catalog", "Column", "DType", "load_catalog"]
