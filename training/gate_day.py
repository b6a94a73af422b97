"""The gate day's raw rows, as the gate looks at them: candidate and champion score the same samples, each with
the vocabularies, booster and graph of its own published folder.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from features.errors import DataError, Problem
from features.schema import label_name, mask_name
from training.gate import judge
from training.gate_case import Evidence, Scored
from training.gate_conf import GateConf
from training.published import Output
from training.scorer import Scorer
from training.segments import Segments, segments_of
from training.verdict import Days, Parity, Verdict

Floats = NDArray[np.float64]


def judge_folders(
    model: str,
    candidate: Path,
    champion: tuple[str, Path] | None,
    samples: pa.Table,
    parity: Parity | None,
    conf: GateConf | None,
) -> Verdict:
    """Score a gate day with two published folders, and judge.

    Args:
        model: name in the registry.
        candidate: its published folder.
        champion: version and published folder, None when there is none.
        samples: unencoded rows of the candidate's gate day, with labels and masks.
        parity: of the candidate's export.
        conf: thresholds; None stops.

    Raises:
        DataError: if the candidate names no gate day, the samples are not of it, or the champion cannot read them.
    """
    scorer = Scorer.open(str(candidate))
    gate = scorer.trainset.splits.get("gate")
    if gate is None or len(gate.days) != 1:
        days = ", ".join(gate.days) if gate else "none"
        remedy = "Export the train set with one held-out day"
        raise DataError([Problem(what=f"the candidate must have one gate day, it has {days}", remedy=remedy)])
    _check_day(samples, gate.days[0])
    labels, weights = labels_and_weights(samples, scorer.contents.outputs)
    against = _champion(model, *champion, samples) if champion else None
    reference = (against or scorer).encoder
    evidence = Evidence(
        model=model,
        day=gate.days[0],
        labels=labels,
        weights=weights,
        group=samples["user_id"].to_numpy().astype(np.int64),
        segments=segments_of(samples, reference, conf.segments) if conf is not None else Segments(),
        left_out=_not_judged(scorer),
        parity=parity,
    )
    other = _scored(f"version {champion[0]}", against, samples) if champion and against else None
    return judge(_scored(scorer.trainset.name, scorer, samples), other, evidence, conf)


def labels_and_weights(
    samples: pa.Table, outputs: tuple[Output, ...]
) -> tuple[Mapping[str, Floats], Mapping[str, Floats]]:
    """Label and weight of every output on every row, [n] each.

    A conjunction of labels is judged up to its first that is 0, as in training.modeling.base.Target.

    Raises:
        DataError: naming every label that the samples lack.
    """
    wanted = {name for output in outputs for label in output.all_of for name in (label_name(label), mask_name(label))}
    if missing := sorted(wanted - set(samples.column_names)):
        remedy = "Judge on samples with labels"
        raise DataError([Problem(table="samples", what="labels are missing", examples=missing, remedy=remedy)])
    labels: dict[str, Floats] = {}
    weights: dict[str, Floats] = {}
    for output in outputs:
        label, weight = np.ones(len(samples)), np.ones(len(samples))
        for name in output.all_of:
            weight = np.where(label > 0, weight * _numbers(samples, mask_name(name)), weight)
            label = label * _numbers(samples, label_name(name))
        labels[output.name], weights[output.name] = label, weight
    return labels, weights


def _not_judged(scorer: Scorer) -> dict[str, str]:
    """Output → why the gate day says nothing of it: one of its labels is left out, or too rare on that day."""
    trainset = scorer.trainset
    reasons = {**trainset.left_out, **trainset.unjudged}
    outputs = {
        output.name: f"{label}: {reasons[label]}"
        for output in scorer.contents.outputs
        for label in output.all_of
        if label in reasons
    }
    return {**outputs, **reasons}


def _numbers(samples: pa.Table, name: str) -> Floats:
    numbers: Floats = samples[name].cast(pa.float64()).to_numpy()
    return numbers


def _scored(name: str, scorer: Scorer, samples: pa.Table) -> Scored:
    return Scored(name=name, days=Days.of(scorer.trainset), scores=scorer.score(samples))


def _champion(model: str, version: str, folder: Path, samples: pa.Table) -> Scorer:
    """The champion, unless a changed catalog has made the candidate's rows unreadable to it."""
    scorer = Scorer.open(str(folder))
    if missing := sorted(set(scorer.encoder.columns()) - set(samples.column_names)):
        remedy = f"Bring the features back, or go on without a champion: `limelight withdraw {model} --why ...`"
        what = f"version {version} of {model} reads columns that the catalog no longer has: it cannot be compared with"
        raise DataError([Problem(table="samples", what=what, count=len(missing), examples=missing, remedy=remedy)])
    return scorer


def _check_day(samples: pa.Table, day: str) -> None:
    if "dt" not in samples.column_names:
        return  # without days there is nothing to contradict the manifest
    others = sorted({str(value) for value in samples["dt"].unique().to_pylist()} - {day})
    if others:
        remedy = "Judge on the samples of the candidate's gate day"
        raise DataError(
            [
                Problem(
                    table="samples", day=day, what="rows of another day than the gate's", examples=others, remedy=remedy
                )
            ]
        )
