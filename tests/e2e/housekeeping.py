"""What an operator does with a warehouse after some days: gc, a rollback, serving tables, a user forgotten."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.demo import LAST_DAY, SET, Demo
from tests.e2e.short_runs import limelight
from tests.warehouse_files import busiest_user

# Everything here was made within the hour; tiles must cover the longest window before the kept states.
KEEP_LITTLE = [
    *("retention.young_hours=0", "retention.state_days=3", "retention.samples_days=3", "retention.tiles_days=33"),
    *("retention.trainsets=1", "retention.rollbacks=1"),
]


@dataclass(frozen=True, kw_only=True)
class Housekept:
    """What the commands said, and the warehouse after each of them, copied.

    Attributes:
        planned: files that were there after gc's dry run and before gc itself.
        swept: after gc and the rollback; `serving`: with its serving tables; `forgotten`: without the user.
    """

    user: int
    dry: str
    planned: frozenset[str]
    sweep: str
    rollback: str
    checks: str
    forget: str
    swept: Path
    served: Path
    forgotten: Path


def keep_house(demo: Demo, scratch: Path) -> Housekept:
    """Run the commands on a demo's warehouse, one after the other, and put it back as it was.

    They run where it lies: train sets and MLflow's registry name it by URL.
    """
    warehouse, before = demo.out / "warehouse", scratch / "before"
    shutil.copytree(warehouse, before)

    def run(command: str, *arguments: str, conf: Sequence[str] = ()) -> str:
        overrides = [part for value in conf for part in ("--set", value)]
        return limelight(demo.conf, [command, *arguments, "--warehouse", str(warehouse), *overrides])

    def copied(name: str) -> Path:
        return Path(shutil.copytree(warehouse, scratch / name, ignore=shutil.ignore_patterns("raw", "mlflow")))

    try:
        user = busiest_user(warehouse, LAST_DAY)
        conf = [*SET[1::2], *KEEP_LITTLE]
        dry = run("gc", conf=conf)
        planned = frozenset(files(warehouse))
        sweep = run("gc", "--apply", conf=conf)
        rollback = run("rollback", "deepfm", "--why", "test", "--yes")
        swept = copied("swept")
        run("serving", "--date", str(LAST_DAY), conf=["serving.buckets=2"])
        served = copied("served")
        checks = run("status", "--checks")
        forget = run("forget", "--user", str(user), "--apply", conf=SET[1:2])
        return Housekept(
            user=user, dry=dry, planned=planned, sweep=sweep, rollback=rollback, checks=checks, forget=forget,
            swept=swept, served=served, forgotten=copied("forgotten"),
        )  # fmt: skip
    finally:
        shutil.rmtree(warehouse)
        shutil.move(before, warehouse)


def files(warehouse: Path) -> set[str]:
    """Every file of the derived tables."""
    return {
        str(path.relative_to(warehouse))
        for path in warehouse.rglob("*")
        if path.is_file() and path.relative_to(warehouse).parts[0] not in ("raw", "mlflow")
    }
