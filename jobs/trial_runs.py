"""What trainings of trials leave: a folder each while they may be the best, a run each in MLflow."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from training.mlflow_access import quiet_client
from training.result import CURVES_FILE, RUN_FILE, read_result
from training.storage import Folder


class TrialRuns:
    """Folders NNNN below one, and the store that `uri` names."""

    def __init__(self, below: Path, uri: str | None) -> None:
        self.below, self.uri = below, uri

    def folder(self, number: int) -> Path:
        """Of a trial; its training is in `run`."""
        return self.below / f"{number:04d}"

    def figure(self, number: int, task: str, metric: str) -> float | None:
        """Of valid, after the epoch whose weights a training has kept; None if undefined, or not complete."""
        run = self.folder(number) / "run"
        result = read_result(Folder(str(run)))
        if result is None or result.best_epoch is None:
            return None
        curves = json.loads((run / CURVES_FILE).read_text(encoding="utf-8"))
        found: float | None = curves[result.best_epoch]["valid"][task][metric]
        return found

    def run_id(self, number: int) -> str | None:
        """MLflow's; None before the training has begun."""
        file = self.folder(number) / "run" / RUN_FILE
        return json.loads(file.read_text(encoding="utf-8"))["run_id"] if file.is_file() else None

    def tag(self, number: int, state: str, *, ended: bool = False) -> None:
        """Say in MLflow which trial a run is; `ended` closes the run of a training that could not do so."""
        run_id = self.run_id(number)
        if run_id is None or self.uri is None:
            return
        client = quiet_client(self.uri)
        client.set_tag(run_id, "limelight.trial", number)
        client.set_tag(run_id, "limelight.state", state)
        if ended:
            client.set_terminated(run_id, status="KILLED")

    def tidy(self, best: int | None) -> None:
        """Keep the training of the best trial alone: weights of hundreds of trials fill a disk."""
        for folder in self.below.glob("*"):
            if best is None or folder != self.folder(best):
                shutil.rmtree(folder, ignore_errors=True)
