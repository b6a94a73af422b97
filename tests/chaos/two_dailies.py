"""Two `limelight daily` of one warehouse and day at once, the second a random time after the first.

One of them has the turn, the other says who holds it and leaves all alone (exit code 6), or comes when the first is
done. A rerun completes, and the training is that of a run that was alone.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import random
import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from features.errors import ExitCode
from tests.chaos.outcome import Found
from tests.chaos.training_inspection import LASTING
from tests.e2e.demo import EASY
from tests.e2e.short_runs import ROOT, command, environment, short_conf
from tests.warehouse_files import manifests
from training.result import load_model

MODEL = "lr"
DAYS = 10
DATE = datetime.date(2025, 3, 11)
ALONE = [
    *("training.ranks=1", "training.launcher=alone", f"training.models=[{MODEL}]", "raw.min_free_bytes=1"),
    *("gate.main.min_positives=1", "gate.main.min_negatives=1", "tasks.min_positives=5", "tasks.min_negatives=5"),
]
SET = [part for value in (*EASY, *ALONE) for part in ("--set", value)]
END_S = 3000.0  # of one run: 30 s on idle cores
_QUIET = {"OMP_NUM_THREADS": "1", "MLFLOW_DISABLE_TELEMETRY": "true"}


class TwoDailies:
    """The prepared warehouse has raw days and the day's samples: what is left is a train set, a training, the gate.

    Args:
        scratch: a warehouse that another run has prepared there is taken as it is.
    """

    def __init__(self, scratch: Path) -> None:
        self._place, self._prepared = scratch / "daily" / "trial", scratch / "daily" / "prepared"
        self._logs = scratch / "daily" / "logs"
        self._conf = scratch / "daily" / "conf"
        self._logs.mkdir(parents=True, exist_ok=True)
        if not self._prepared.exists():  # an earlier run's, in a scratch folder that was kept
            self._prepare(scratch / "truth")
        self._copy()
        begun = time.monotonic()
        self._require(self._daily())
        self._seconds = time.monotonic() - begun
        self._end = self._contents()

    def _prepare(self, truth: Path) -> None:
        for folder in (self._conf, self._place):
            shutil.rmtree(folder, ignore_errors=True)
        short_conf(self._conf)
        ingest = ["ingest", "simulate", "--impressions", "12000", "--days", str(DAYS), "--truth", str(truth)]
        self._require([*ingest, "--warehouse", str(self._place)])
        self._require(self._daily())
        # Samples stay, what follows from them goes: the undisturbed run is to be as long as a disturbed one.
        for name in ("trainsets", "runs", "mlflow", "retrains"):
            shutil.rmtree(self._place / name, ignore_errors=True)
        self._place.rename(self._prepared)

    def trial(self, rng: random.Random) -> Found | None:
        """Two, and then one more."""
        self._copy()
        seconds = rng.uniform(0, self._seconds)
        first = self._started(self._daily(), "first")
        time.sleep(seconds)
        second = self._started(self._daily(), "second")
        codes = [_code(first), _code(second)]
        found = Found(point=f"the second {seconds:.1f} s after the first", said=f"exit codes {codes[0]} and {codes[1]}")
        if sorted(codes) not in ([ExitCode.OK, ExitCode.OK], [ExitCode.OK, ExitCode.HELD_BY_ANOTHER_RUN]):
            found.lost.append(f"neither a turn nor a refusal: {self._told('first')} | {self._told('second')}")
        found.lost += self._partial()
        found.diverged += self._differences()
        code = _code(self._started(self._daily(), "again"))
        if code != 0:
            found.lost.append(f"the rerun ended with {code}: {self._told('again')}")
            return found
        found.lost += self._partial()
        found.diverged += self._differences()
        return found

    def _differences(self) -> list[str]:
        now, alone = self._contents(), self._end
        return [f"{name} is not that of one run alone" for name in sorted(alone) if now.get(name) != alone[name]]

    def _copy(self) -> None:
        shutil.rmtree(self._place, ignore_errors=True)
        shutil.copytree(self._prepared, self._place)

    def _daily(self) -> list[str]:
        out = ["--out", str(self._place.parent / "out")]
        return ["daily", "--warehouse", str(self._place), "--date", str(DATE), *out, *SET]

    def _started(self, arguments: Sequence[str], name: str) -> subprocess.Popen[bytes]:
        with (self._logs / f"{name}.log").open("wb") as log:
            return subprocess.Popen(
                command(*arguments), cwd=ROOT, env={**environment(self._conf), **_QUIET}, stdout=log, stderr=log
            )

    def _require(self, arguments: Sequence[str]) -> None:
        code = _code(self._started(arguments, arguments[0]))
        if code != 0:
            raise RuntimeError(f"limelight {arguments[0]} ended with {code}: {self._told(arguments[0])}")

    def _told(self, name: str) -> str:
        return (self._logs / f"{name}.log").read_text(encoding="utf-8", errors="replace").strip()[-600:]

    @property
    def _run(self) -> Path:
        return self._place / "runs" / f"full-{DATE}" / MODEL

    def _partial(self) -> list[str]:
        """A complete training that loads; every committed partition has its files with their rows."""
        try:
            load_model(str(self._run))
        except Exception as error:  # noqa: BLE001 - whatever it is, it is what the next reader would meet
            return [f"the training does not load: {type(error).__name__} {str(error)[:300]}"]
        return [
            f"{name}: {file.path} is named and not there"
            for name, manifest in manifests(self._place).items()
            for file in manifest.files
            if not (self._place / manifest.table / file.path).is_file()
        ]

    def _contents(self) -> dict[str, str]:
        """Digests of partitions, and of what the training left."""
        files = {name: hashlib.sha256((self._run / name).read_bytes()).hexdigest() for name in LASTING}
        verdict = json.loads((self._run / "verdict.json").read_text(encoding="utf-8"))
        figures = {task["task"]: task["candidate"] for task in verdict["tasks"]}
        digests = {name: manifest.digest for name, manifest in manifests(self._place).items()}
        return files | {"figures": json.dumps(figures)} | digests

    def close(self) -> None:
        """Nothing is kept running."""


def _code(process: subprocess.Popen[bytes]) -> int:
    """Its exit code; of one that does not end, that of the signal that ends it."""
    try:
        return process.wait(END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()
