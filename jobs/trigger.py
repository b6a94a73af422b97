"""`limelight trigger`: evaluate what is new, decide, write the decision down, and retrain as it says.

Steps of a round, alone in the warehouse by the ledger's lease:
  1. go on     an open decision is gone on with, and nothing else is decided
  2. evaluate  champions on newly mature days
  3. decide    from committed facts; a decision that was made before is not made again, nor is its retrain repeated
  4. commit    the decision, before anything is done about it
  5. retrain   full or incremental, as of the decision's own date

A process that is killed after step 4 leaves an open decision: the next round takes it up at step 1.
"""

from __future__ import annotations

import datetime
import uuid
from collections.abc import Callable
from dataclasses import dataclass

from features.errors import ConfError, ExitCode, HeldError, LimelightError, NotReadyError
from jobs.champions import Champions
from jobs.console import Steps
from jobs.evaluate import Evaluated, evaluate_new, newest_mature_day
from jobs.retrain_facts import gather
from jobs.settings import Settings
from pipeline.decision import Action, Decision, Record, State
from pipeline.ledger import Ledger
from pipeline.tables import Warehouse
from pipeline.trigger import decide
from pipeline.trigger_facts import TriggerConf

ONE_DAY = datetime.timedelta(days=1)
Retrain = Callable[[Action, datetime.date, bool], int]
"""Kind, date, whether trainings that were cut off go on → exit code: 0, or that of a gate that stopped a model."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a round came to.

    Attributes:
        record: the decision that counts, and its state.
        made: it was made in this round; otherwise it was there.
        evaluated: what was evaluated on the way.
    """

    record: Record
    made: bool
    evaluated: Evaluated
    exit_code: int


class Trigger:
    """Rounds of one warehouse.

    Args:
        retrain: runs a retrain to its end; None for one that only begins (`begin`).
        tell: hears of a decision once it is written down, before anything is done about it.

    Raises:
        ConfError: when conf has no section `trigger`: no threshold has a default.
    """

    def __init__(
        self,
        warehouse: Warehouse,
        settings: Settings,
        champions: Champions,
        retrain: Retrain | None,
        *,
        tell: Callable[[Outcome], None],
        steps: Steps | None = None,
    ) -> None:
        self._warehouse, self._settings, self._champions = warehouse, settings, champions
        self._retrain, self._tell, self._steps = retrain, tell, steps or Steps()
        self._conf, self._ledger = required(settings), Ledger(warehouse)

    def dry_run(self, date: datetime.date) -> tuple[Decision, Evaluated]:
        """What a round would decide; nothing is written."""
        return self._decide(date, commit=False)

    def round(self, date: datetime.date) -> Outcome:
        """One round on the morning of `date`: at most one decision, and its retrain to the end.

        Raises:
            HeldError: when another run decides or retrains.
            NotReadyError: when the retrain waits for input; its decision stays open.
            LimelightError: when the retrain failed; its decision stays open until its attempts are used up.
        """
        with self._ledger.lease(f"trigger-{uuid.uuid4().hex[:12]}"):
            outcome = self._standing(date)
            if outcome.record.is_open:
                return self._carry_out(outcome)
            self._tell(outcome)
            return outcome

    def begin(self, date: datetime.date) -> Outcome:
        """The first half of a round, for whoever holds the ledger's lease and runs the retrain step by step.

        Returns:
            A decision that is `started` and waits for `conclude`, or one that leaves nothing to do.
        """
        outcome = self._standing(date)
        self._tell(outcome)
        return self._started(outcome) if outcome.record.is_open else outcome

    def _standing(self, date: datetime.date) -> Outcome:
        found = self._ledger.open()
        if found is not None and self._is_outdated(found, date):
            self._ledger.move(found, "superseded", why=f"a later day can be mature on {date}")
            found = None
        if found is not None:
            return Outcome(record=found, made=False, evaluated=Evaluated(), exit_code=0)
        decision, evaluated = self._decide(date, commit=True)
        known = self._ledger.of_key(decision.key)
        record = known or self._ledger.commit(decision, date)
        code = ExitCode.FAILURE if record.state == "failed" else ExitCode.OK
        return Outcome(record=record, made=known is None, evaluated=evaluated, exit_code=int(code))

    def _is_outdated(self, record: Record, date: datetime.date) -> bool:
        """What waits is decided anew when a later day can be mature; what was begun has a day more to end."""
        age = newest_mature_day(date, self._settings.pipeline) - record.decision.mature
        return age > (datetime.timedelta() if record.state == "waiting" else ONE_DAY)

    def _decide(self, date: datetime.date, *, commit: bool) -> tuple[Decision, Evaluated]:
        mature = newest_mature_day(date, self._settings.pipeline)
        champions = self._champions.of(self._settings.training.models)
        evaluated = evaluate_new(self._warehouse, champions, mature, self._steps, commit=commit)
        uncommitted = () if commit else evaluated.done
        facts = gather(self._warehouse, self._settings, champions, mature, uncommitted)
        return decide(facts, self._conf), evaluated

    def _started(self, outcome: Outcome) -> Outcome:
        """The attempt is counted; without one left the decision is given up."""
        record = outcome.record
        if record.attempt >= self._conf.max_attempts:  # the last one was killed
            why = f"killed in attempt {record.attempt} of {self._conf.max_attempts}"
            return self._ended(outcome, self._ledger.move(record, "failed", why=why), int(ExitCode.FAILURE))
        record = self._ledger.move(record, "started", attempt=record.attempt + 1)
        return self._ended(outcome, record, int(ExitCode.OK))

    def _carry_out(self, outcome: Outcome) -> Outcome:
        self._tell(outcome)
        again = outcome.record.attempt > 0 or outcome.record.state == "waiting"
        started = self._started(outcome)
        record = started.record
        if record.state != "started":
            return started
        assert self._retrain is not None, "a trigger without a retrain has no rounds"
        try:
            code = self._retrain(record.decision.action, record.date, again)
        except (HeldError, NotReadyError) as waits:
            self._ledger.move(record, "waiting", attempt=record.attempt - 1, why=str(waits))
            raise
        except Exception as error:
            state: State = "failed" if record.attempt >= self._conf.max_attempts else "interrupted"
            name = "" if isinstance(error, LimelightError) else f"{type(error).__name__}: "
            self._ledger.move(record, state, why=f"{name}{error}")
            raise
        why = "published" if code == ExitCode.OK else "the gate stopped a model"
        return self._ended(outcome, self._ledger.move(record, "finished", why=why), code)

    @staticmethod
    def _ended(outcome: Outcome, record: Record, code: int) -> Outcome:
        return Outcome(record=record, made=outcome.made, evaluated=outcome.evaluated, exit_code=code)


def conclude(ledger: Ledger, settings: Settings, *, failed: bool) -> Record | None:
    """Write down how a retrain ended that `Trigger.begin` has started; None when none is under way.

    One that failed is begun again by the next decision, until its attempts are used up.
    """
    record = ledger.open()
    if record is None or record.state != "started":
        return None
    if not failed:
        return ledger.move(record, "finished", why="its steps ended; the verdicts say what was published")
    is_last = record.attempt >= required(settings).max_attempts
    return ledger.move(record, "failed" if is_last else "interrupted", why="a step failed: see the scheduler's log")


def required(settings: Settings) -> TriggerConf:
    """The thresholds.

    Raises:
        ConfError: when conf has none.
    """
    if settings.trigger is None:
        raise ConfError(
            "conf has no section `trigger`: no threshold has a default; conf/base.yaml has one to start from"
        )
    return settings.trigger
