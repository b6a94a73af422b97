"""What the gate asks for, and what it answered: thresholds, figures, verdict.json, and a table for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field, model_validator
from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from features.errors import GateStoppedError
from features.manifest import Frozen, TrainSet
from training.bootstrap import Interval

VERDICT_FILE = "verdict.json"

Rule = Literal[
    "no_thresholds",
    "no_data",
    "no_unseen_day",
    "not_finite",
    "parity",
    "floors",
    "champion_comparison",
    "first_model",
]


class TaskRules(Frozen):
    """Thresholds of one task. None has a default: a threshold nobody wrote down lets nothing through.

    `bound` is the end of the paired interval of candidate − champion that must not lie below −max_drop:
    "low" asks for proof that the candidate is no worse, "high" stops only on proof that it is worse,
    "point" looks at the difference itself.
    """

    min_rows: int = Field(ge=1)
    min_positives: int = Field(ge=1)
    min_negatives: int = Field(ge=1)
    min_auc: float = Field(ge=0.5, le=1)
    min_pcoc: float = Field(gt=0)
    max_pcoc: float = Field(gt=0)
    max_auc_drop: float = Field(ge=0, le=0.5)
    max_gauc_drop: float = Field(ge=0, le=0.5)
    bound: Literal["low", "point", "high"]

    @model_validator(mode="after")
    def _pcoc_range_is_one(self) -> TaskRules:
        if self.min_pcoc > self.max_pcoc:
            raise ValueError(f"min_pcoc={self.min_pcoc} is above max_pcoc={self.max_pcoc}; swap them")
        return self


class GateConf(Frozen):
    """What a candidate must reach: the main task strictly, the others with more room (they are rarer)."""

    main_task: str
    main: TaskRules
    others: TaskRules
    rounds: int = Field(ge=50, description="bootstrap resamples")
    seed: int
    level: float = Field(gt=0.5, lt=1, description="of the intervals, e.g. 0.95")
    min_parity_rows: int = Field(ge=1, description="fewer are allowed only when the gate day has fewer")
    max_logit_difference: float = Field(gt=0, le=1e-4)
    max_probability_difference: float = Field(gt=0, le=1e-5)

    def rules(self, task: str) -> TaskRules:
        """The thresholds of a task."""
        return self.main if task == self.main_task else self.others


class Parity(Frozen):
    """ONNX Runtime against PyTorch, from raw rows. Differences are the largest absolute ones.

    Attributes:
        rows: held-out rows compared; of them those with an empty sequence, and with an OOV id.
        stripped_rows: further rows whose ids were taken away and whose sequences were emptied.
        single_row_batches: rows that were also scored alone.
        differing_columns: encoded column (ids, leaves, ...) → rows unlike the train set's; must be empty.
    """

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
    """A model on one task; a figure is None when it is undefined (one class only, not finite)."""

    auc: float | None
    gauc: float | None
    logloss: float | None
    pcoc: float | None


class TaskVerdict(Frozen):
    """One judged task: evidence, figures of both models, intervals by user."""

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


class Verdict(Frozen):
    """What the gate decided and why; written as verdict.json and shown to people."""

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
    left_out: Mapping[str, str]
    parity: Parity | None
    conf: GateConf | None

    @property
    def passed(self) -> bool:
        """Whether the candidate may be published."""
        return self.verdict == "pass"

    def require_pass(self) -> None:
        """Stop the process unless the candidate passed.

        Raises:
            GateStoppedError: naming the rule and every reason.
        """
        if not self.passed:
            raise GateStoppedError(
                f"gate stopped {self.model} ({self.candidate}) by rule {self.rule}: " + "; ".join(self.reasons)
            )


def explain(verdict: Verdict) -> RenderableType:
    """The verdict as a table and sentences, for a terminal."""
    passed = verdict.passed
    title = f"{verdict.model}: {verdict.verdict.upper()} by rule {verdict.rule}"
    table = Table(
        title=title, title_style="bold green" if passed else "bold red", title_justify="left", box=SIMPLE_HEAD
    )
    for heading in ("task", "rows", "positives", "AUC", "GAUC", "logloss", "PCOC"):
        table.add_column(heading, justify="left" if heading == "task" else "right")
    for task in verdict.tasks:
        table.add_row(
            task.task,
            f"{task.rows:,}",
            f"{task.positives:,}",
            _compared(task.candidate.auc, task.auc_difference),
            _compared(task.candidate.gauc, task.gauc_difference),
            _number(task.candidate.logloss),
            _number(task.candidate.pcoc, 3),
        )
    champion = verdict.champion or "none yet"
    lines = [
        f"gate day {verdict.day}, {verdict.rows:,} impressions; champion: {champion}",
        f"candidate {verdict.candidate} has seen until {verdict.candidate_days.seen_until}",
        *(f"left out: {task} ({why})" for task, why in verdict.left_out.items()),
        *(f"{'+' if passed else '-'} {reason}" for reason in verdict.reasons),
    ]
    return Group(table, *(Text(line) for line in lines))


def explain_text(verdict: Verdict, width: int = 120) -> str:
    """`explain` as plain text, for logs and the report."""
    console = Console(width=width, no_color=True, force_terminal=False)
    with console.capture() as capture:
        console.print(explain(verdict))
    return capture.get()


def _number(value: float | None, digits: int = 4) -> str:
    return "undefined" if value is None else f"{value:.{digits}f}"


def _compared(value: float | None, difference: Interval | None) -> str:
    """The figure, and below it the difference to the champion's with its interval."""
    if difference is None:
        return _number(value)
    return f"{_number(value)}\n{difference.point:+.4f} [{difference.low:+.4f}, {difference.high:+.4f}]"
