"""The mutation trial: the pipeline's own stages stand still; stages that peek for 1 % of the keys are found."""

from __future__ import annotations

import datetime
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.audit.conf import AuditConf
from pipeline.audit.mutation import mutation_trial
from pipeline.audit.report import Finding, Verdict
from pipeline.audit.sample_set import SampleSet
from pipeline.context import Context
from pipeline.run import compute_samples
from tests.pipeline.audit.planted import alarms, files_of, finding, ignore
from tests.small_world import raw_folder

CONF = AuditConf()
Day = datetime.date


class Stages:
    """The pipeline's stages; afterwards, optionally, some rows get values that read what they may not.

    The same rows are chosen and changed in every trial, so the stages run once; the second trial gets their samples.
    """

    def __init__(self, kept: Path) -> None:
        self.folders: list[Path] = []
        self._kept = kept

    def clean(self, context: Context, days: Sequence[Day], report: Callable[[str], None]) -> None:
        compute_samples(context, days, report)
        self.folders.append(Path(context.warehouse.url))
        shutil.copytree(self.folders[0] / "samples", self._kept / "samples")

    def peeking(self, context: Context, days: Sequence[Day], report: Callable[[str], None]) -> None:
        self.folders.append(Path(context.warehouse.url))
        shutil.copytree(self._kept / "samples", self.folders[1] / "samples")
        peek(self.folders[1], days[-1])


def peek(warehouse: Path, day: Day) -> None:
    """For a few rows per side: the enters of day D itself in a profile, the day's last viewers in the room's state."""
    actions = pq.read_table(raw_folder(warehouse, "actions", day)).to_pylist()
    minutes = pq.read_table(raw_folder(warehouse, "room_stats", day)).to_pylist()
    for path in files_of(warehouse, "samples", f"dt={day}")[1]:
        table = pq.read_table(path)
        rows = table.to_pylist()
        for row in rows:
            if row["user_id"] % 100 == 7:
                mine = [a for a in actions if a["user_id"] == row["user_id"] and a["action"] == "gift"]
                row["user_gift_coins_7d"] += int(sum(a["value"] for a in mine))
            if row["room_id"] % 100 == 3:
                heat = [m["viewers"] for m in minutes if m["room_id"] == row["room_id"]]
                row["room_viewers"] = max(heat, default=0)
        pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), path)


@pytest.fixture(scope="module")
def trials(clean: SampleSet, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Finding]]:
    assert clean.own is not None
    stages = Stages(tmp_path_factory.mktemp("trial"))
    found = {
        "clean": mutation_trial(clean.own, CONF, ignore, compute=stages.clean),
        "peeking": mutation_trial(clean.own, CONF, ignore, compute=stages.peeking),
    }
    assert [folder for folder in stages.folders if folder.exists()] == [], "scratch warehouses are left behind"
    return found


def test_the_stages_stand_still_under_every_mutation(clean: SampleSet, trials: dict[str, list[Finding]]) -> None:
    assert alarms(trials["clean"]) == {}
    passed = {found.subject for found in trials["clean"] if found.verdict is Verdict.PASS}
    assert passed == {group.name for group in clean.groups} - {"impression"}
    for found in trials["clean"]:
        assert int(found.figures["raw rows deleted, changed or added"]) > 50, "a trial that changes little shows little"
        assert int(found.figures["rows"]) > 50


def test_stages_that_peek_for_a_few_keys_are_found_and_nothing_else(trials: dict[str, list[Finding]]) -> None:
    assert alarms(trials["peeking"]) == {"user_gift_coins_7d": Verdict.LEAK, "room_viewers": Verdict.LEAK}
    assert "happened or arrived on 2025-03-05 or later" in finding(trials["peeking"], "user_gift_coins_7d").what
    assert finding(trials["peeking"], "user_gift_coins_7d").examples
    standing = finding(trials["peeking"], "profiles of user")
    assert standing.verdict is Verdict.PASS
    assert "24 of 25 columns stood still" in standing.what
