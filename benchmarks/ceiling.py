"""How far models get towards what can be known at all: simulated logs, a full retrain, the truth beside it.

limelight ingest simulate    raw logs, and the true probability of every label           once
limelight daily              features, samples, train set (once), one model → its summary, with the AUC of the truth on
                             the rows that it was judged on                                one run per model, resumable
share of the way             (AUC − 0.5) / (ceiling − 0.5) on the gate day
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from features.errors import ExitCode

DATE = "2025-03-19"
"""The morning after the simulator's 18 days."""
TASK = "enter"
DONE = (ExitCode.OK, ExitCode.GATE_STOPPED)


def measure(out: Path, impressions: int, models: Sequence[str], told: Callable[[str], None]) -> dict[str, Any]:
    """Model → its AUC on `enter`, the ceiling on the same rows, the share of the way."""
    root = out / "ceiling" / str(impressions)
    paths = ["--warehouse", str(root / "warehouse"), "--truth", str(root / "truth")]
    if not (root / "ingested").is_file():
        _limelight("ingest", "simulate", *paths, "--impressions", str(impressions))
        (root / "ingested").touch()
    found = {}
    for model in models:
        folder = root / "models" / model
        if not (folder / "summary.json").is_file():
            chosen = f"training.models=[{model}]"
            _limelight("daily", *paths, "--date", DATE, "--out", str(folder), "--set", chosen, "--resume")
        found[model] = _of_way(json.loads((folder / "summary.json").read_text(encoding="utf-8")), model)
        told(f"{model}: AUC {found[model]['auc']:.4f}, {found[model]['ratio']:.3f} of the way to the ceiling")
    return found


def _of_way(summary: dict[str, Any], model: str) -> dict[str, Any]:
    judged = summary["models"][model][TASK]
    auc, ceiling = judged["auc"], judged["auc_ceiling"]
    return {"auc": auc, "ceiling": ceiling, "ratio": (auc - 0.5) / (ceiling - 0.5)}


def _limelight(*arguments: str) -> None:
    """Run a command; its output stays on the terminal."""
    command = [sys.executable, "-m", "jobs.cli", *arguments]
    code = subprocess.run(command, check=False).returncode
    if code not in DONE:
        sys.exit(f"bench_accuracy: `limelight {' '.join(arguments)}` ended with exit code {code}")
