"""What the command `trigger` does once it is parsed: opens the warehouse, and runs a round, a dry run or a watch."""

from __future__ import annotations

import datetime
import logging
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from zoneinfo import ZoneInfo

from rich.markup import escape

from features.errors import ExitCode
from jobs.champions import Champions
from jobs.console import console
from jobs.evaluate import Evaluated, settings_of
from jobs.settings import Settings
from jobs.trigger import Outcome, Trigger, required
from jobs.trigger_table import in_a_line, reasons_table
from jobs.watch import log, stop_on_signals, watch
from pipeline.decision import Action, Decision
from pipeline.ledger import Ledger
from pipeline.tables import Warehouse
from training.registry import Registry


@dataclass(frozen=True, kw_only=True)
class TriggerOptions:
    """What was asked for; `out` is the folder of a retrain's summary and report."""

    warehouse: str
    out: Path
    place: str
    overrides: tuple[str, ...] = ()

    def retrain(self, action: Action, date: datetime.date, resume: bool) -> int:
        """The retrain that was decided on, as `limelight daily` and `limelight incremental` run it."""
        from jobs.run_command import retrain  # Spark and torch, which a quiet round does without

        out = self.out / f"{action}-{date}"
        return retrain(action, self.warehouse, date, self.place, self.overrides, out, None, resume=resume)


def run_once(options: TriggerOptions, date: datetime.date | None) -> int:
    """One round; the exit code is the retrain's, or 0 when there was none."""
    trigger, settings = _open(options, show)
    outcome = trigger.round(date or today(settings))
    if outcome.record.state != "decided":
        why = f": {outcome.record.why}" if outcome.record.why else ""
        console.print(f"→ {outcome.record.decision.action} is {outcome.record.state}{escape(why)}", soft_wrap=True)
    return outcome.exit_code


def explain(options: TriggerOptions, date: datetime.date | None) -> int:
    """What a round would decide; nothing is changed."""
    trigger, settings = _open(options, show)
    decision, evaluated = trigger.dry_run(date or today(settings))
    _print(decision, evaluated)
    pending = Ledger(Warehouse(options.warehouse)).open()
    if pending is not None:
        what = f"{pending.decision.action} of {pending.date} is {pending.state}, attempt {pending.attempt}"
        console.print(f"[yellow]open:[/] {escape(what)}; a round would go on with it first", soft_wrap=True)
    console.print("dry run: nothing was changed")
    return int(ExitCode.OK)


def run_watch(options: TriggerOptions, every: int | None) -> int:
    """Rounds until a signal; conf is read once."""
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    last = ""

    def tell(outcome: Outcome) -> None:
        nonlocal last
        if outcome.record.decision.key != last or outcome.record.is_open:
            log.info("%s", in_a_line(outcome))
        last = outcome.record.decision.key

    trigger, settings = _open(options, tell)
    stop = threading.Event()
    came = stop_on_signals(stop)
    seconds = every or required(settings).every_seconds
    log.info("watching %s every %d s", Warehouse(options.warehouse).url, seconds)

    def one_round() -> None:
        outcome = trigger.round(today(settings))
        if outcome.record.attempt and outcome.record.why:
            log.info("%s: %s, %s", outcome.record.decision.action, outcome.record.state, outcome.record.why)

    rounds = watch(one_round, seconds, stop)
    log.info("%s: stopped after %d rounds", ", ".join(came), rounds)
    return int(ExitCode.OK)


def today(settings: Settings) -> datetime.date:
    """In the business time zone."""
    return datetime.datetime.now(ZoneInfo(settings.pipeline.time.zone)).date()


def _open(options: TriggerOptions, tell: Callable[[Outcome], None]) -> tuple[Trigger, Settings]:
    warehouse = Warehouse(options.warehouse)
    settings, _ = settings_of(warehouse, options.place, options.overrides)
    registry = Registry.open(*settings.tracking(warehouse.url))
    return Trigger(warehouse, settings, Champions(registry), options.retrain, tell=tell), settings


def show(outcome: Outcome) -> None:
    """A decision with every reason, and whether it was made before."""
    if not outcome.made:
        record = outcome.record
        console.print(f"decided before, as of {record.date}: {record.state}", soft_wrap=True)
    _print(outcome.record.decision, outcome.evaluated)


def _print(decision: Decision, evaluated: Evaluated) -> None:
    console.print(reasons_table(decision))
    for model, why in evaluated.unread.items():
        console.print(f"[yellow]{model} was not evaluated:[/] {escape(why)}", soft_wrap=True)
    for note in decision.notes:
        console.print(f"[yellow]note:[/] {escape(note)}", soft_wrap=True)
    asking = ", ".join(f"{found.model} {found.reason}" for found in decision.reasons) or "every reason is quiet"
    console.print(f"[bold]{decision.action}[/] ({asking}); decision {decision.key}", soft_wrap=True)
