"""summary.json: what one run of the whole chain did, for people and for whoever checks them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import Field

from features.manifest import Frozen

SUMMARY_FILE = "summary.json"


class StageTime(Frozen):
    """One stage: wall-clock seconds, and the rows that it wrote."""

    name: str
    seconds: float = Field(ge=0)
    rows: int = Field(ge=0)


class TaskSummary(Frozen):
    """One model on one task, on the gate day; None where a figure is undefined or not known.

    `auc_ceiling` is the AUC of the true probabilities (simulated sources only), `heat_auc` that of ranking
    by the heat of the rooms.
    """

    auc: float | None
    gauc: float | None
    logloss: float | None
    pcoc: float | None
    auc_ceiling: float | None = None
    heat_auc: float | None = None


class GateSummary(Frozen):
    """What the gate said of one model; verdict.json beside the model says more."""

    verdict: Literal["pass", "stop"]
    rule: str
    reasons: tuple[str, ...]


class PublishedVersion(Frozen):
    """A version in the registry; `uri` is its published folder."""

    name: str
    version: str
    uri: str


class Summary(Frozen):
    """summary.json.

    Attributes:
        days: of the raw logs, ISO.
        models: model → task → figures.
        gate: model → verdict.
        export_max_abs_diff: largest absolute difference of a probability, ONNX Runtime against PyTorch, over
            all models; None when nothing was exported.
        left_out: task → why it was neither trained nor judged.
        ids_added: vocabulary → ids that an incremental run added; empty for a full retrain.
        ids_evicted: vocabulary → keys that are evicted in its train set, likewise.
        rows_replayed: earlier train day → rows of it that were trained on once more, likewise.
        notes: sentences for the reader, e.g. "PCOC is on a sampled scale".
    """

    source: str
    days: tuple[str, ...]
    world_size: int = Field(ge=1)
    stages: tuple[StageTime, ...]
    models: Mapping[str, Mapping[str, TaskSummary]]
    gate: Mapping[str, GateSummary]
    published: tuple[PublishedVersion, ...]
    export_max_abs_diff: float | None
    seconds_total: float = Field(ge=0)
    left_out: Mapping[str, str] = Field(default_factory=dict)
    ids_added: Mapping[str, int] = Field(default_factory=dict)
    ids_evicted: Mapping[str, int] = Field(default_factory=dict)
    rows_replayed: Mapping[str, int] = Field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def write(self, folder: Path) -> Path:
        """Write summary.json into a local folder; NaN and infinity would be null."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / SUMMARY_FILE
        path.write_text(self.text, encoding="utf-8")
        return path

    @property
    def text(self) -> str:
        """The content of the file."""
        return self.model_dump_json(indent=1) + "\n"

    @classmethod
    def read(cls, folder: Path) -> Summary:
        """Read it back."""
        return cls.model_validate_json((folder / SUMMARY_FILE).read_text(encoding="utf-8"))
