"""A demo on little data, and the conf with which so little passes the gate."""

from __future__ import annotations

import datetime
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LAST_DAY = datetime.date(2025, 3, 18)
NEXT_RUN = LAST_DAY + datetime.timedelta(days=2)
MODELS = ("deepfm", "mmoe")
# Floors that a model of one epoch on some thousand rows meets; which floors there are is tested in test_gate.
EASY = [
    *("training.models=[deepfm,esmm,mmoe]", "days.train=3", "days.fit=2", "leaves.trees=4", "export.files=2"),
    *("tasks.min_positives=40", "gate.main.min_rows=100", "gate.main.min_auc=0.5", "gate.main.max_auc_drop=0.5"),
    *("gate.main.min_pcoc=0.05", "gate.main.max_pcoc=20", "gate.main.max_gauc_drop=0.5", "gate.rounds=50"),
    *("gate.others.min_positives=1", "gate.others.min_negatives=1", "gate.others.min_pcoc=0.05"),
    *("gate.others.max_pcoc=20", "gate.others.max_auc_drop=0.5", "gate.others.max_gauc_drop=0.5"),
    *(
        f"gate.{group}.{threshold}"
        for group in ("main", "others")
        for threshold in (
            *("detectable_auc_drop=1", "max_auc=1", "max_auc_gain=0.5", "max_calibration_loss=10"),
            *("max_logloss_rise=10", "max_score_psi=100"),
        )
    ),
    *("gate.segments.max_auc_drop=0.5", "gate.segments.max_calibration_loss=10"),
]
SET = [part for value in EASY for part in ("--set", value)]


@dataclass(frozen=True, kw_only=True)
class Demo:
    """A finished demo."""

    out: Path
    conf: Path

    @property
    def places(self) -> list[str]:
        return ["--warehouse", str(self.out / "warehouse"), "--truth", str(self.out / "truth")]

    def summary(self, folder: str = ".") -> Any:
        return json.loads((self.out / folder / "summary.json").read_text(encoding="utf-8"))
