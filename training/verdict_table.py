"""A verdict as tables and sentences for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from training.bootstrap import Interval
from training.verdict import Check, Figures, Verdict


def explain(verdict: Verdict) -> RenderableType:
    """The verdict in short: figures per task, and the reasons."""
    return Group(_tasks(verdict), *(Text(line) for line in _sentences(verdict)))


def explain_in_full(verdict: Verdict) -> RenderableType:
    """Every task with the figures of both models, every segment, every rule with figure and limit, the evidence."""
    parts: list[RenderableType] = [_title(verdict), _models(verdict)]
    if verdict.segments:
        parts.append(_segments(verdict))
    if verdict.checks:
        parts.append(_checks(verdict.checks))
    return Group(*parts, *(Text(line) for line in (*_notes(verdict), *_sentences(verdict))))


def explain_text(verdict: Verdict, width: int = 120) -> str:
    """`explain` as plain text, for logs and the report."""
    return _plain(explain(verdict), width)


def explain_in_full_text(verdict: Verdict, width: int = 160) -> str:
    """`explain_in_full` as plain text."""
    return _plain(explain_in_full(verdict), width)


def _plain(shown: RenderableType, width: int) -> str:
    console = Console(width=width, no_color=True, force_terminal=False)
    with console.capture() as capture:
        console.print(shown)
    return capture.get()


def _title(verdict: Verdict) -> Text:
    style = "bold green" if verdict.passed else "bold red"
    others = ", ".join(verdict.stopped_by[1:])
    also = f"; also by {others}" if others else ""
    return Text(f"{verdict.model}: {verdict.verdict.upper()} by rule {verdict.rule}{also}", style=style)


def _table(title: str, *headings: str, left: int = 1) -> Table:
    """The first `left` columns hold words, the others numbers."""
    table = Table(title=title, title_style="bold", title_justify="left", box=SIMPLE_HEAD)
    for place, heading in enumerate(headings):
        table.add_column(heading, justify="left" if place < left else "right")
    return table


def _tasks(verdict: Verdict) -> Table:
    table = _table("", "task", "rows", "positives", "AUC", "GAUC", "logloss", "PCOC")
    table.title, table.title_style = _title(verdict), ""
    for task in verdict.tasks:
        table.add_row(
            task.task,
            f"{task.rows:,}",
            f"{task.positives:,}",
            _compared(task.candidate.auc, task.auc_difference),
            _compared(task.candidate.gauc, task.gauc_difference),
            _number(task.candidate.logloss),
            _number(task.candidate.pcoc, 3),
        )
    return table


def _models(verdict: Verdict) -> Table:
    """Per task a row of the candidate, one of the champion, and one of what lies between them."""
    table = _table("tasks", "task", "", "rows", "positives", "users", "AUC", "GAUC", "logloss", "PCOC", left=2)
    for task in verdict.tasks:
        counts = (f"{task.rows:,}", f"{task.positives:,}", f"{task.users:,}")
        table.add_row(task.task, "candidate", *counts, *_figures(task.candidate))
        if task.champion is None:
            continue
        table.add_row("", "champion", "", "", "", *_figures(task.champion))
        between = (task.auc_difference, task.gauc_difference, task.logloss_rise, task.calibration_loss)
        table.add_row("", "between them", "", "", "", *(_below(one) for one in between), end_section=True)
    return table


def _segments(verdict: Verdict) -> Table:
    headings = ("AUC − champion's", "GAUC − champion's", "PCOC", "champion's", "growth of |ln PCOC|", "judged")
    table = _table("segments", "task", "segment", "rows", "positives", "users", "AUC", *headings, left=2)
    stopped = {(check.task, check.segment) for check in verdict.checks if not check.passed}
    for one in verdict.segments:
        table.add_row(
            one.task,
            escape(one.segment),
            f"{one.rows:,}",
            f"{one.positives:,}",
            f"{one.users:,}",
            _number(one.candidate.auc),
            _around(one.auc_difference),
            _around(one.gauc_difference),
            _number(one.candidate.pcoc, 3),
            _number(one.champion.pcoc, 3) if one.champion else "–",
            _around(one.calibration_loss),
            f"no: {one.not_judged}" if one.not_judged else _answer(passed=(one.task, one.segment) not in stopped),
        )
    return table


def _checks(checks: Sequence[Check]) -> Table:
    """Every check; of segments, which have a table of their own, those that stop, and the worst of each figure."""
    table = _table("rules", "rule", "task", "segment", "figure", "seen", "limit", "", left=4)
    shown = [check for check in checks if check.segment is None or not check.passed]
    for check in shown:
        _add_check(table, check, check.segment or "")
    passed = [check for check in checks if check.segment is not None and check.passed and check.seen is not None]
    for figure in dict.fromkeys(check.figure for check in passed):
        alike = [check for check in passed if check.figure == figure]
        nearest = min(alike, key=lambda check: (check.seen or 0.0) * (1 if check.limit.startswith("≥") else -1))
        _add_check(table, nearest, f"{nearest.segment}, nearest to the limit of {len(alike)} that passed")
    return table


def _add_check(table: Table, check: Check, segment: str) -> None:
    table.add_row(
        check.rule,
        check.task or "",
        escape(segment),
        escape(check.figure),
        "–" if check.seen is None else _short(check.seen),
        escape(check.limit),
        _answer(passed=check.passed),
    )


def _answer(*, passed: bool) -> str:
    return "[green]passed[/]" if passed else "[red]stopped[/]"


def _notes(verdict: Verdict) -> Iterator[str]:
    """What the tables do not say."""
    if verdict.format_version == 1:
        yield "judged by an earlier Limelight: without segments, and thresholds are not shown"
        return
    if verdict.conf is None:
        return
    if any(task.champion is not None for task in verdict.tasks):
        yield (
            "between them: candidate − champion for AUC and GAUC, rise ÷ champion's for logloss, growth of |ln PCOC|; "
            f"intervals of {verdict.conf.level:.0%}, {verdict.conf.rounds} resamples by user"
        )
    judged = sum(one.not_judged is None for one in verdict.segments)
    if judged:
        rules = verdict.conf.segments
        yield (
            f"± of the {judged} judged segments hold all together at {rules.level:.0%}; one stops when all of it lies "
            f"below {-rules.max_auc_drop:g} (AUC) or above {rules.max_calibration_loss:g} (growth of |ln PCOC|)"
        )
    for task in verdict.tasks:
        if task.detectable_drop is not None:
            yield (
                f"evidence for {task.task}: {task.rows:,} rows of {task.users:,} users tell a drop of AUC of "
                f"{task.detectable_drop:.4f} with 90 % power"
            )


def _sentences(verdict: Verdict) -> Iterator[str]:
    yield f"gate day {verdict.day}, {verdict.rows:,} impressions; champion: {verdict.champion or 'none yet'}"
    yield f"candidate {verdict.candidate} has seen until {verdict.candidate_days.seen_until}"
    for task, why in verdict.left_out.items():
        yield f"left out: {task} ({why})"
    for reason in verdict.reasons:
        yield f"{'+' if verdict.passed else '-'} {reason}"


def _figures(figures: Figures) -> tuple[str, ...]:
    return (*(_number(one) for one in (figures.auc, figures.gauc, figures.logloss)), _number(figures.pcoc, 3))


def _number(value: float | None, digits: int = 4) -> str:
    return "undefined" if value is None else f"{value:.{digits}f}"


def _short(value: float) -> str:
    """A count as a count, any other figure with four digits after the point, or as a power of ten when tiny."""
    rounded = round(value, 10)
    if rounded == int(rounded):
        return f"{int(rounded):,}"
    return f"{value:.4f}" if abs(value) >= 0.0001 else f"{value:.1e}"


def _interval(interval: Interval | None) -> str:
    return "–" if interval is None else f"{interval.point:+.4f} [{interval.low:+.4f}, {interval.high:+.4f}]"


def _around(interval: Interval | None) -> str:
    """A normal interval: half of its width on either side."""
    return "–" if interval is None else f"{interval.point:+.4f} ± {interval.high - interval.point:.4f}"


def _below(interval: Interval | None) -> str:
    """The interval on a line of its own, so that four of them fit beside each other."""
    return _interval(interval).replace(" [", "\n[")


def _compared(value: float | None, difference: Interval | None) -> str:
    """The figure, and below it the difference to the champion's with its interval."""
    return _number(value) if difference is None else f"{_number(value)}\n{_interval(difference)}"
