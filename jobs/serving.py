"""The serving tables as of a day, by spark-submit or by `limelight serving`.

spark-submit jobs/serving.py --warehouse URL --from 2026-01-19 --to 2026-01-19     what it reads must be there
spark-submit jobs/serving.py --warehouse URL --retrain full --date 2026-01-19      computes that first, as the next
limelight serving -w URL --date 2026-01-19
"""

from __future__ import annotations

import datetime
import sys
from collections.abc import Sequence

from jobs.console import Steps
from jobs.open_run import Run, open_run, session
from jobs.stage_door import run_days, run_stage
from jobs.summary import StageTime
from pipeline.context import ONE_DAY
from pipeline.plan import sample_stages, stage
from pipeline.run import days_of, run_stages


def serve(warehouse: str, day: datetime.date, place: str, overrides: Sequence[str], *, force: bool = False) -> None:
    """The serving tables as of `day`, and what is missing or stale of the states before them. Sees dt < day.

    Raises:
        NotReadyError: when there is no fresh snapshot.
        HeldError: when another run computes the day.
    """
    with session("serving", warehouse, place, overrides) as spark:
        serve_in(open_run(spark, warehouse, place, overrides, last_day=day - ONE_DAY, force=force), day)


def serve_in(run: Run, day: datetime.date) -> None:
    """The same in an open run, which must not see what arrived on `day` or later."""
    steps = Steps()
    before = [entry for entry in sample_stages() if entry.name != "samples"]
    staged = {entry: days_of(entry, [day], run.context) for entry in before}
    for done in run_stages(run.context, staged, [day], lambda _: None):
        note = f"{len(done.result.computed)} days computed, {len(done.result.skipped)} up to date"
        steps.record(StageTime(name=done.name, seconds=done.seconds, rows=done.result.rows), note)
    run_stage(stage("serving"), run, [day])


if __name__ == "__main__":
    sys.exit(run_days("serving", of_morning=serve_in))
