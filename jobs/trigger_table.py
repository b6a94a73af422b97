"""A decision for people: every reason with its figure and thresholds, and one line for a log."""

from __future__ import annotations

from collections.abc import Mapping

from rich.markup import escape
from rich.table import Table

from jobs.trigger import Outcome
from pipeline.decision import Action, Decision, Finding

MARKS: Mapping[Action, str] = {
    "nothing": "[green]quiet[/]",
    "incremental": "[yellow]incremental[/]",
    "full": "[red]full[/]",
}


def reasons_table(decision: Decision) -> Table:
    """One line per reason of every model: what was seen, against what, and what it asks for."""
    table = Table("model", "reason", "figure", "incremental above", "full above", "asks for", "why")
    for found in decision.findings:
        weak, strong = (found.limits.incremental, found.limits.full) if found.limits else (None, None)
        figure = "[yellow]missing[/]" if found.missing else number(found.figure)
        any_change = "any change" if found.limits is None and found.reason != "champion" else number(strong)
        table.add_row(found.model, found.reason, figure, number(weak), any_change, MARKS[found.asks], escape(found.why))
    return table


def number(value: float | None) -> str:
    """Short, and a dash for none."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if abs(value) >= 1000 or value == int(value) else f"{value:.4g}"


def in_a_line(outcome: Outcome) -> str:
    """What was decided, under which key, and the reasons that asked for it."""
    record = outcome.record
    how = "decided" if outcome.made else f"decided before, {record.state}"
    asking = "; ".join(map(_short, record.decision.reasons)) or "every reason is quiet"
    return " ".join([f"{record.decision.action} ({record.decision.key}, {how}):", asking, *record.decision.notes])


def _short(found: Finding) -> str:
    if found.missing or found.figure is None:
        return f"{found.model} {found.reason}: {found.why}"
    limit = (found.limits.full if found.asks == "full" else found.limits.incremental) if found.limits else None
    return f"{found.model} {found.reason} {number(found.figure)} > {number(limit)}"
