"""Single-feature probe: does one feature alone know the label? It names label twins, whole or in a few rows.

1. each feature as a sequence of distinct values              codes [n]; a list gives its length and its newest element
2. per label, AUC of the values and of out-of-fold rates      two figures per (feature, label)
3. the purest region of values                                one candidate per (feature, label)
4. judged against all others: thresholds of `ProbeConf`       one finding per feature
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from features.errors import DataError, Problem
from pipeline.audit.conf import AuditConf, ProbeConf
from pipeline.audit.probe_statistics import (
    Counted,
    Ints,
    Region,
    Regions,
    auc,
    out_of_fold_auc,
    purest_region,
)
from pipeline.audit.report import Finding, Verdict
from pipeline.audit.sample_set import FeatureGroup, LabelColumn, SampleSet

Report = Callable[[str], None]
MAX_LIST_PARTS = 16
"""A list column is probed element by element when all lists have one length up to this."""


@dataclass(frozen=True, kw_only=True)
class Values:
    """One column of numbers or texts as codes of its distinct values; null and NaN are the code `distinct − 1`.

    Attributes:
        codes: [n], ascending with the values.
        texts: how the values read, by code.
    """

    codes: Ints
    distinct: int
    texts: pa.Array

    @classmethod
    def of(cls, column: pa.ChunkedArray | pa.Array) -> Values:
        """From any column whose values can be sorted."""
        flat = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
        if pa.types.is_floating(flat.type):
            flat = pc.if_else(pc.is_nan(flat), pa.scalar(None, flat.type), flat)
        if pa.types.is_boolean(flat.type):
            flat = flat.cast(pa.int8())
        dictionary = flat.dictionary_encode() if not pa.types.is_dictionary(flat.type) else flat
        order = pc.sort_indices(dictionary.dictionary).to_numpy()
        rank = np.empty(order.size + 1, dtype=np.int64)
        rank[order] = np.arange(order.size)
        rank[order.size] = order.size
        places = pc.fill_null(dictionary.indices.cast(pa.int64()), order.size).to_numpy()
        return cls(codes=rank[places], distinct=order.size + 1, texts=dictionary.dictionary.take(pa.array(order)))

    def text(self, code: int) -> str:
        """A value for people."""
        return "null" if code >= len(self.texts) else str(self.texts[code].as_py())


@dataclass(frozen=True, kw_only=True)
class Probed:
    """What a feature knows of a label."""

    feature: str
    label: str
    auc: float
    region: Region | None
    where: str


def probe(samples: SampleSet, conf: AuditConf, report: Report) -> list[Finding]:
    """One finding per feature, and one per label that has too few rows of a class.

    Raises:
        DataError: a label holds other values than 0, 1 and null.
    """
    chosen = samples.chosen(conf.rows)
    labels = {label.name: _label(samples, label, chosen) for label in samples.labels}
    _check_labels(samples, labels)
    few = {name: _classes(found) for name, found in labels.items() if min(_classes(found)) < conf.probe.min_class_rows}
    masks = _by_mask({name: found for name, found in labels.items() if name not in few})
    findings = [_too_few(name, classes, conf.probe) for name, classes in few.items()]
    hashes = samples.key_hashes()
    folds = ((hashes if chosen is None else hashes[chosen]) % np.uint64(conf.probe.folds)).astype(np.int64)
    probed: dict[str, list[Probed]] = {}
    unreadable: list[str] = []
    regions = 0
    columns = [(group, name) for group in samples.groups for name in group.columns]
    for number, (group, name) in enumerate(columns):
        report(f"{name} ({number + 1} of {len(columns)})")
        probed[name] = []
        for part, values, ordered in _parts(samples, group, name, chosen):
            for of_mask in masks:
                found, tested = _probe(part, values, ordered, of_mask, folds, conf.probe)
                probed[name] += found
                regions += tested
        if not probed[name] and masks:
            unreadable.append(name)
    findings += [_unreadable(name) for name in unreadable]
    return findings + _judge({k: v for k, v in probed.items() if v}, regions, conf.probe)


def _label(samples: SampleSet, label: LabelColumn, chosen: NDArray[np.bool_] | None) -> Ints:
    """[n] 0, 1, or −1 where the label is masked or null; −2 where it is anything else."""
    column = pc.fill_null(samples.column(label.column, chosen).cast(pa.float64()), -1.0).to_numpy()
    values = np.where(np.isin(column, (0.0, 1.0, -1.0)), column, -2.0).astype(np.int64)
    if label.mask is None:
        return values
    mask = pc.fill_null(samples.column(label.mask, chosen).cast(pa.float64()), 0.0).to_numpy()
    return np.where(mask > 0, values, -1)


def _check_labels(samples: SampleSet, labels: Mapping[str, Ints]) -> None:
    odd = {name: int((values == -2).sum()) for name, values in labels.items()}
    if any(odd.values()):
        raise DataError(
            Problem(
                table=samples.name,
                column=name,
                what="a label is neither 0 nor 1 nor null",
                count=count,
                remedy="Name 0/1 columns with --label; make one from a score by a threshold",
            )
            for name, count in odd.items()
            if count
        )


def _classes(labels: Ints) -> tuple[int, int]:
    return int((labels == 1).sum()), int((labels == 0).sum())


def _too_few(label: str, classes: tuple[int, int], conf: ProbeConf) -> Finding:
    return Finding(
        check="probe",
        subject=f"label {label}",
        verdict=Verdict.NOT_CHECKABLE,
        what=f"{classes[0]:,} positive and {classes[1]:,} negative rows; {conf.min_class_rows} of each are needed",
    )


def _unreadable(name: str) -> Finding:
    what = "values of this type cannot be ordered or compared"
    return Finding(check="probe", subject=name, verdict=Verdict.NOT_CHECKABLE, what=what)


def _parts(
    samples: SampleSet, group: FeatureGroup, name: str, chosen: NDArray[np.bool_] | None
) -> Iterator[tuple[str, Values, bool]]:
    """(name, values, whether they have an order) of a scalar column, or of what a list column is probed by."""
    kind = samples.dataset.schema.field(name).type
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        scalar = kind.value_type
        is_ordered = name not in group.unordered and not pa.types.is_string(scalar)
        if pa.types.is_nested(scalar):
            return
        for part, column in _of_lists(name, samples.column(name, chosen).combine_chunks()):
            yield part, Values.of(column), is_ordered or part.startswith("length")
    elif not pa.types.is_nested(kind) and not pa.types.is_null(kind):
        is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_dictionary(kind)
        yield name, Values.of(samples.column(name, chosen)), name not in group.unordered and not is_text


def _of_lists(name: str, lists: pa.Array) -> Iterator[tuple[str, pa.Array]]:
    """Length and first element of each list; every element where all have one small length."""
    lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False).astype(np.int64)
    flat, starts = lists.flatten(), np.cumsum(lengths) - lengths
    sizes = np.unique(lengths[lengths > 0])
    width = int(sizes[0]) if sizes.size == 1 and sizes[0] <= MAX_LIST_PARTS else 1
    yield f"length of {name}", pa.array(lengths)
    for place in range(width):
        yield f"{name}[{place}]", flat.take(pa.array(starts + place, mask=lengths <= place))


@dataclass(frozen=True, kw_only=True)
class OfMask:
    """Labels that are judged on the same rows: name → [rows judged] 0 or 1."""

    judged: NDArray[np.bool_]
    labels: Mapping[str, Ints]


def _by_mask(labels: Mapping[str, Ints]) -> list[OfMask]:
    groups: dict[bytes, dict[str, Ints]] = {}
    for name, known in labels.items():
        groups.setdefault(np.packbits(known >= 0).tobytes(), {})[name] = known
    found = []
    for members in groups.values():
        judged = next(iter(members.values())) >= 0
        found.append(OfMask(judged=judged, labels={name: known[judged] for name, known in members.items()}))
    return found


def _probe(
    part: str, values: Values, ordered: bool, of_mask: OfMask, folds: Ints, conf: ProbeConf
) -> tuple[list[Probed], int]:
    """A feature against the labels of one mask, and how many regions were tested."""
    codes, its_folds = values.codes[of_mask.judged], folds[of_mask.judged]
    rows = np.bincount(codes, minlength=values.distinct).astype(np.int64)
    # Missing values are no neighbours of the largest ones; whether there is a value is a question of its own.
    there = Regions.of(rows[:-1], conf, ordered=ordered)
    presence = Regions.of(_last_and_rest(rows), conf, ordered=False)
    found = []
    for label, labels in of_mask.labels.items():
        counted = Counted.of(codes, labels, values.distinct)
        best = out_of_fold_auc(codes, labels, its_folds, values.distinct)
        if ordered:
            ranked = auc(counted)
            best = max(best, ranked, 1 - ranked)
        region = purest_region(there, counted.positives[:-1], conf, rows=rows[:-1], base=counted.base)
        where = "" if region is None else _where(part, values, region)
        either, positives = _last_and_rest(rows), _last_and_rest(counted.positives)
        missing = purest_region(presence, positives, conf, rows=either, base=counted.base)
        if missing is not None and (region is None or missing.log_chance < region.log_chance):
            region, where = missing, f"{part} is {'null' if missing.first == 0 else 'not null'}"
        found.append(Probed(feature=part, label=label, auc=best, region=region, where=where))
    return found, len(of_mask.labels) * (there.first.size + presence.first.size)


def _last_and_rest(counts: Ints) -> Ints:
    return np.array([counts[-1], counts[:-1].sum()], dtype=np.int64)


def _where(part: str, values: Values, region: Region) -> str:
    first, last = values.text(region.first), values.text(region.last)
    return f"{part} = {first}" if region.first == region.last else f"{first} ≤ {part} ≤ {last}"


def _judge(probed: Mapping[str, list[Probed]], regions: int, conf: ProbeConf) -> list[Finding]:
    """A finding per feature: its best label by AUC and its purest region, beside all other features."""
    limit = math.log(conf.alpha / max(1, regions))
    best_of_label: dict[str, list[tuple[float, str]]] = {}
    for feature, found in probed.items():
        for one in found:
            best_of_label.setdefault(one.label, []).append((one.auc, feature))
    findings = []
    for feature, found in probed.items():
        reasons: list[str] = []
        figures: dict[str, float] = {}
        for one in found:
            others = max((value for value, other in best_of_label[one.label] if other != feature), default=0.5)
            figures[f"auc of {one.label}"] = max(round(one.auc, 4), figures.get(f"auc of {one.label}", 0.0))
            reasons += _reasons(one, others, limit, conf)
        verdict = Verdict.SUSPECT if reasons else Verdict.PASS
        best = max(found, key=lambda one: one.auc)
        what = "; ".join(dict.fromkeys(reasons)) or f"best alone: AUC {best.auc:.3f} of {best.label}"
        findings.append(Finding(check="probe", subject=feature, verdict=verdict, what=what, figures=figures))
    return findings


def _reasons(one: Probed, others: float, limit: float, conf: ProbeConf) -> Iterator[str]:
    is_lone = one.auc >= conf.lone_auc and one.auc - others >= conf.lone_margin
    if one.auc >= conf.max_auc or is_lone:
        yield f"label twin: AUC {one.auc:.3f} of {one.label}, the best other feature has {others:.3f}"
    if one.region is not None and one.region.log_chance < limit:
        region = one.region
        yield (
            f"label twin in {region.rows:,} rows: where {one.where}, {region.share:.1%} have the rarer class of "
            f"{one.label}, around it {region.around:.1%} (chance below 1e{region.log_chance / math.log(10):.0f})"
        )
