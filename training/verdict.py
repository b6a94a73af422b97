"""What the gate answered: figures, checks and the verdict, as verdict.json holds them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Literal

from pydantic import ConfigDict, Field, ValidationError

from features.errors import DataError, GateStoppedError, Problem
from features.manifest import Frozen, TrainSet
from training.bootstrap import Interval
from training.gate_conf import GateConf

VERDICT_FILE = "verdict.json"
VERDICT_FORMAT: Literal[2] = 2

Rule = Literal[
    "no_thresholds",
    "no_data",
    "no_unseen_day",
    "not_finite",
    "parity",
    "floors",
    "leakage_suspected",
    "calibration",
    "champion_comparison",
    "score_shift",
    "segments",
    "evidence",
    "first_model",
]


class Parity(Frozen):
    """ONNX Runtime against PyTorch, from raw rows. Differences are the largest absolute ones.

    Attributes:
        rows: held-out rows compared; of them those with an empty sequence, and with an OOV id.
        stripped_rows: further rows whose ids were taken away and whose sequences were emptied.
        single_row_batches: rows that were also scored alone.
        differing_columns: encoded column (ids, leaves, ...) → rows unlike the train set's; must be empty.
    """

    model_config = ConfigDict(ser_json_inf_nan="strings")  # a difference of NaN stops, and must be read back as NaN

    rows: int = Field(ge=0)
    rows_with_empty_sequence: int = Field(ge=0)
    rows_with_oov: int = Field(ge=0)
    stripped_rows: int = Field(ge=0)
    single_row_batches: int = Field(ge=0)
    differing_columns: Mapping[str, int]
    logit_difference: float
    probability_difference: float


class Days(Frozen):
    """The days that a model was fitted on, ISO; `seen_until` is the newest that anything in it has seen."""

    train: tuple[str, ...]
    valid: tuple[str, ...]
    seen_until: str

    @classmethod
    def of(cls, trainset: TrainSet) -> Days:
        """From a train set. Early stopping and calibration look at the validation day: it counts as seen."""
        train, valid = (trainset.splits[name].days if name in trainset.splits else () for name in ("train", "valid"))
        return cls(train=train, valid=valid, seen_until=max((trainset.seen_until, *train, *valid)))


class Figures(Frozen):
    """A model on some rows of one task; a figure is None when it is undefined (one class only, not finite)."""

    auc: float | None
    gauc: float | None
    logloss: float | None
    pcoc: float | None


class TaskVerdict(Frozen):
    """One judged task: evidence, figures of both models, intervals by user; what compares is None without a champion.

    Attributes:
        auc_difference, gauc_difference: candidate − champion.
        logloss_rise: candidate / champion − 1.
        calibration_loss: |ln PCOC| of the candidate − that of the champion.
        score_psi: population-stability index of the candidate's scores against the champion's.
        detectable_drop: the smallest drop of AUC that would be stopped with 90 % power on these rows.
    """

    task: str
    rows: int
    positives: int
    negatives: int
    users: int
    candidate: Figures
    champion: Figures | None
    auc_interval: Interval | None
    gauc_interval: Interval | None
    auc_difference: Interval | None = None
    gauc_difference: Interval | None = None
    logloss_rise: Interval | None = None
    calibration_loss: Interval | None = None
    score_psi: float | None = None
    detectable_drop: float | None = None


class SegmentVerdict(Frozen):
    """One task on one segment of the gate day. Its intervals hold together with those of all judged segments.

    `not_judged` says why it is shown only; None when the rules look at it.
    """

    segment: str
    task: str
    rows: int
    positives: int
    negatives: int
    users: int
    candidate: Figures
    champion: Figures | None
    auc_difference: Interval | None
    gauc_difference: Interval | None
    calibration_loss: Interval | None
    not_judged: str | None


class Check(Frozen):
    """One question of one rule and its answer.

    Attributes:
        task, segment: what it is about; None: the whole model, all rows.
        figure: what was looked at, in words.
        seen: the figure; None where it is no number, or undefined.
        limit: what it had to be, in words.
        reason: why it stops; None when it passed.
    """

    rule: Rule
    task: str | None = None
    segment: str | None = None
    figure: str
    seen: float | None
    limit: str
    reason: str | None

    @property
    def passed(self) -> bool:
        """Whether it lets the candidate through."""
        return self.reason is None


class Verdict(Frozen):
    """What the gate decided and why; written as verdict.json and shown to people.

    `format_version` 1 are files of before segments and checks, as `read_verdict` brings them up.
    """

    format_version: Literal[1, 2] = VERDICT_FORMAT
    model: str
    verdict: Literal["pass", "stop"]
    rule: Rule
    reasons: tuple[str, ...] = Field(min_length=1)
    candidate: str
    champion: str | None
    day: str
    candidate_days: Days
    champion_days: Days | None
    rows: int
    tasks: tuple[TaskVerdict, ...]
    segments: tuple[SegmentVerdict, ...] = ()
    checks: tuple[Check, ...] = ()
    left_out: Mapping[str, str]
    parity: Parity | None
    conf: GateConf | None

    @property
    def passed(self) -> bool:
        """Whether the candidate may be published."""
        return self.verdict == "pass"

    @property
    def stopped_by(self) -> tuple[Rule, ...]:
        """Every rule that stopped it, in the order in which they are asked; empty when it passed."""
        return tuple(dict.fromkeys(check.rule for check in self.checks if not check.passed))

    def require_pass(self) -> None:
        """Stop the process unless the candidate passed.

        Raises:
            GateStoppedError: naming the rule and every reason.
        """
        if not self.passed:
            raise GateStoppedError(
                f"gate stopped {self.model} ({self.candidate}) by rule {self.rule}: " + "; ".join(self.reasons)
            )


def read_verdict(text: str, where: str) -> Verdict:
    """verdict.json, also one of an earlier Limelight: it had no format version, no segments and fewer thresholds.

    Args:
        text: its content.
        where: it is, for the message.

    Raises:
        DataError: when it is no verdict, or one of a later Limelight.
    """
    try:
        document = json.loads(text)
        if isinstance(document, dict) and "format_version" not in document:
            document |= {"format_version": 1, "conf": None}  # thresholds of then do not make a GateConf of today
        return Verdict.model_validate(document)
    except ValueError as error:  # a ValidationError is one too
        at = ".".join(map(str, error.errors()[0]["loc"])) if isinstance(error, ValidationError) else ""
        what = f"{where} is no verdict that this Limelight can read" + (f": {at}" if at else "")
        remedy = "Judge the model again with jobs/gate.py, or read it with the Limelight that wrote it"
        raise DataError([Problem(what=what, remedy=remedy)]) from error
