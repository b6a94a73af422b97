"""Border checks: what may not pass from one stage to the next, judged before anything is committed.

Steps, for the d days of one write:
  1. plan      keys, cuts, bounds and columns that are never null, from the catalog and the table's name
  2. seen      counts, histograms (pipeline.observed) and footers (pipeline.footers) of the same pass    d days
  3. compared  each day with the sum of its reference days: committed ones, and earlier ones of this write
  4. judged    every figure above its threshold is a finding; one that stops lets no day be committed
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from features.errors import DataError, Problem
from features.schema import Catalog
from pipeline.binning import NON_FINITE_BIN, Judged
from pipeline.border import BorderChecks, CarriedSeen, ColumnSeen, Finding, Kind, PastDay, Severity
from pipeline.check_plan import Bounds, TablePlan, plan_of
from pipeline.config import ChecksConf, Limit
from pipeline.footers import Span
from pipeline.stability import positive_rate, psi, summed

ONE_DAY = datetime.timedelta(days=1)

REMEDIES: Mapping[Kind, str] = {
    "rows": "Look whether raw days arrived whole: `limelight check-raw`",
    "nulls": "A part of the join lacks rows; look at the stage before",
    "non_finite": "Look at the raw values behind it: `limelight check-raw`",
    "range": "Look at the raw values behind it: `limelight check-raw`",
    "repeated_keys": "A join repeats rows; look for repeated keys in the stage before",
    "label_rate": "Look whether the actions behind the label arrived whole: `limelight check-raw`",
    "psi": "Look at `limelight status --checks` for when the column began to move",
    "state": "What is stored of the days before is not what was written. Compute the day from its tiles: "
    "`limelight backfill --force --set windows.max_carried_days=0`",
    "touched": "Look whether raw days arrived whole: `limelight check-raw`",
}


@dataclass(frozen=True, kw_only=True)
class Impossible:
    """Touched keys that hold a value in a column which no tiles can have made."""

    column: str
    keys: int
    examples: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class DaySeen:
    """One day of a write, before it is compared with anything; `carried` and `impossible` only where it is a delta."""

    rows: int
    spans: Mapping[str, Span]
    histograms: Mapping[str, Sequence[int]]
    distinct_keys: int | None = None
    carried: CarriedSeen | None = None
    impossible: Sequence[Impossible] = ()


@dataclass(frozen=True, kw_only=True)
class BorderRules:
    """The catalog says what a column may be, conf how far it may move."""

    catalog: Catalog
    conf: ChecksConf

    def plan(self, table: str, schema: Sequence[tuple[str, str]]) -> TablePlan:
        """What is checked of a table with these columns."""
        return plan_of(table, schema, self.catalog, self.conf.one_in)

    def judge(
        self,
        plan: TablePlan,
        seen: Mapping[datetime.date, DaySeen],
        past: Callable[[datetime.date], PastDay | None],
    ) -> dict[datetime.date, BorderChecks]:
        """Compare each day with those before it.

        Args:
            past: a committed day with its checks, or None.

        Raises:
            DataError: every finding that stops, of all days.
        """
        judged: dict[datetime.date, BorderChecks] = {}
        known: dict[datetime.date, PastDay | None] = {}
        for day in sorted(seen):
            before = [day - ONE_DAY * back for back in range(self.conf.reference_days, 0, -1)]
            for other in before:
                if other not in known:
                    known[other] = past(other)
            reference = [found for other in before if (found := known[other]) is not None]
            judged[day] = self._judge_day(plan, seen[day], reference)
            known[day] = PastDay(partition=f"dt={day}", rows=seen[day].rows, columns=judged[day].columns)
        problems = [
            Problem(table=plan.table, day=day.isoformat(), column=found.column, what=found.what,
                    examples=found.examples,
                    remedy=f"{REMEDIES[found.kind]}. Nothing was committed; the threshold is conf checks.{found.kind}")
            for day, checks in judged.items()
            for found in checks.findings
            if found.severity == "stop"
        ]  # fmt: skip
        if problems:
            raise DataError(problems)
        return judged

    def _judge_day(self, plan: TablePlan, seen: DaySeen, reference: Sequence[PastDay]) -> BorderChecks:
        columns = {}
        findings: list[Finding] = [*self._table_findings(seen, reference), *self._carried_findings(seen)]
        for name in dict.fromkeys([*seen.spans, *seen.histograms]):
            column = self._column(plan, seen, reference, name)
            columns[name] = column
            findings += self._column_findings(plan, seen, reference, name, column)
        return BorderChecks(
            columns=columns,
            one_in=plan.one_in,
            distinct_keys=seen.distinct_keys,
            reference=tuple(past.partition for past in reference),
            reference_rows=sum(past.rows for past in reference),
            carried=seen.carried,
            findings=tuple(findings),
        )

    def _column(self, plan: TablePlan, seen: DaySeen, reference: Sequence[PastDay], name: str) -> ColumnSeen:
        counts = seen.histograms.get(name, ())
        span = seen.spans.get(name, Span(nulls=counts[0] if counts else 0))
        binning = plan.binnings.get(name)
        compared = summed(name, str(binning), reference)
        return ColumnSeen(
            nulls=span.nulls,
            low=span.low,
            high=span.high,
            bins=str(binning) if counts else None,
            histogram=tuple(counts),
            psi=psi(counts, compared, self.conf.empty_share) if compared is not None else None,
            rate=positive_rate(counts) if isinstance(binning, Judged) else None,
        )

    def _table_findings(self, seen: DaySeen, reference: Sequence[PastDay]) -> Iterator[Finding]:
        usual = sum(past.rows for past in reference) / len(reference) if reference else 0
        if usual > 0:
            figure = abs(seen.rows / usual - 1)
            what = f"{seen.rows:,} rows where the {len(reference)} days before had {usual:,.0f} on average"
            yield from _above(self.conf.rows, "rows", None, figure, what)
        if seen.distinct_keys is not None and seen.rows > 0:
            figure = max(0.0, 1 - seen.distinct_keys / seen.rows)
            what = f"about {seen.distinct_keys:,} distinct keys in {seen.rows:,} rows"
            yield from _above(self.conf.repeated_keys, "repeated_keys", None, figure, what)

    def _carried_findings(self, seen: DaySeen) -> Iterator[Finding]:
        if seen.carried is None:
            return
        touched, either = seen.carried.touched, seen.rows + seen.carried.died
        what = f"{touched:,} keys of {either:,} were touched"
        yield from _above(self.conf.touched, "touched", None, touched / max(1, either), what)
        for found in seen.impossible:
            what = f"{found.keys:,} of {touched:,} touched keys hold what no tiles can have made"
            for finding in _above(self.conf.state, "state", found.column, found.keys / touched, what):
                yield finding.model_copy(update={"examples": found.examples})

    def _column_findings(
        self, plan: TablePlan, seen: DaySeen, reference: Sequence[PastDay], name: str, column: ColumnSeen
    ) -> Iterator[Finding]:
        rows = max(1, seen.rows)
        if name in plan.required:
            what = f"{column.nulls:,} nulls where none may be"
            yield from _above(self.conf.nulls, "nulls", name, column.nulls / rows, what)
        odd = column.histogram[NON_FINITE_BIN] if column.histogram else 0
        yield from _above(self.conf.non_finite, "non_finite", name, odd / rows, f"{odd:,} values are NaN or infinite")
        yield from self._range_findings(name, column, plan.bounds.get(name, (None, None)))
        if min(seen.rows, sum(past.rows for past in reference)) < self.conf.min_rows * plan.one_in:
            return
        binning = plan.binnings.get(name)
        if column.psi is not None:
            what = f"population stability index against {len(reference)} days before"
            yield from _above(self.conf.psi, "psi", name, column.psi, what)
        compared = summed(name, str(binning), reference)
        usual = positive_rate(compared) if compared is not None and isinstance(binning, Judged) else None
        if usual and column.rate is not None:
            what = f"{column.rate:.4f} of the judged are positive, {usual:.4f} of the {len(reference)} days before"
            yield from _above(self.conf.label_rate, "label_rate", name, abs(column.rate / usual - 1), what)

    def _range_findings(self, name: str, column: ColumnSeen, bounds: Bounds) -> Iterator[Finding]:
        low, high = bounds
        if low is not None and column.low is not None:
            what = f"its smallest value is {column.low:g}, and may be {low:g}"
            yield from _above(self.conf.range, "range", name, low - column.low, what)
        if high is not None and column.high is not None:
            what = f"its largest value is {column.high:g}, and may be {high:g}"
            yield from _above(self.conf.range, "range", name, column.high - high, what)


def _above(limit: Limit, kind: Kind, column: str | None, figure: float, what: str) -> Iterator[Finding]:
    """At most one finding: the stop where both thresholds are passed."""
    thresholds: tuple[tuple[Severity, float | None], ...] = (("stop", limit.stop), ("warn", limit.warn))
    for severity, threshold in thresholds:
        if threshold is not None and figure > threshold:
            said = f"{what}: {kind} is {figure:.4g}, above {threshold:g} ({severity})"
            yield Finding(kind=kind, severity=severity, column=column, figure=figure, threshold=threshold, what=said)
            return
