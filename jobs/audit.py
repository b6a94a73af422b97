"""`limelight audit`: opens a sample set, runs the checks, shows the findings, writes audit.json and audit.html."""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from rich.markup import escape
from rich.table import Table

from features.errors import ConfError, ExitCode
from jobs.console import Step, Steps, console
from jobs.open_run import open_run, session
from jobs.settings import Settings, is_remote
from jobs.summary import StageTime
from pipeline.audit.report import CHECKS, REPORT_FILE, AuditReport, CheckName, CheckRun, Verdict
from pipeline.audit.run import audit
from pipeline.audit.sample_set import SampleSet, foreign, own_days, own_trainset, parse_group
from pipeline.config import day_range

PAGE_FILE = "audit.html"
TEMPLATE = "audit_template.html.j2"
COLOURS = {Verdict.PASS: "green", Verdict.LEAK: "bold red", Verdict.SUSPECT: "yellow", Verdict.NOT_CHECKABLE: "dim"}


@dataclass(frozen=True, kw_only=True)
class AuditOptions:
    """What is audited; `samples` names somebody's Parquet, else the warehouse's own days or train set.

    Raises:
        ConfError: the options contradict each other, or lack something: all of it at once.
    """

    warehouse: str
    trainset: str | None = None
    first: datetime.date | None = None
    last: datetime.date | None = None
    samples: str | None = None
    key: str | None = None
    time: str | None = None
    labels: str | None = None
    groups: Sequence[str] = ()
    checks: str | None = None
    scratch: str | None = None

    def __post_init__(self) -> None:
        problems = []
        named = {"--key": self.key, "--time": self.time, "--label": self.labels}
        if self.samples is not None:
            problems += [f"--samples needs {option}" for option, value in named.items() if not value]
            own = {"--trainset": self.trainset, "--from": self.first, "--to": self.last}
            problems += [f"{option} and --samples exclude each other" for option, value in own.items() if value]
        else:
            foreign_only = {**named, "--group": self.groups}
            problems += [f"{option} belongs to --samples" for option, value in foreign_only.items() if value]
        if self.trainset and (self.first or self.last):
            problems.append("--trainset has its own days: leave out --from and --to")
        mutates = self.samples is None and "mutation" in self.check_names()
        if mutates and self.scratch is None and is_remote(self.warehouse):
            problems.append("--scratch: name a folder that every executor reaches, or leave out --checks mutation")
        if (self.first is None) != (self.last is None):
            problems.append("--from and --to belong together")
        unknown = [name for name in self._wanted() if name not in CHECKS]
        problems += [f"--checks {name}: there are {', '.join(CHECKS)}" for name in unknown]
        if problems:
            raise ConfError("; ".join(problems))

    def check_names(self) -> tuple[CheckName, ...]:
        """The checks that were asked for, in their order; all by default."""
        return CHECKS if self.checks is None else tuple(name for name in CHECKS if name in self._wanted())

    def _wanted(self) -> list[str]:
        return [name.strip() for name in (self.checks or "").split(",") if name.strip()]


def run_audit(options: AuditOptions, place: str, overrides: Sequence[str], out: Path) -> int:
    """Audits, shows and writes; bad data when anything leaks or is suspected to."""
    settings = Settings.load(place, overrides)
    steps = Steps()
    with _open(options, place, overrides) as samples:
        console.print(f"[bold]Leak audit[/]: {escape(samples.name)}, {samples.rows:,} rows")
        live = _Live(steps)
        with steps.step("audit") as step:
            live.attach(step)
            found = audit(
                samples, settings.audit, options.check_names(), report=step.say, done=live.done, scratch=options.scratch
            )
            step.rows = found.rows
    show(found)
    for path in write(found, out):
        console.print(f"→ {path}", soft_wrap=True)
    return int(ExitCode.BAD_DATA if found.alarmed else ExitCode.OK)


class _Live:
    """Says of each check, as it ends, what it found."""

    def __init__(self, steps: Steps) -> None:
        self._steps = steps

    def attach(self, step: Step) -> None:
        """The step under way."""
        self._step = step

    def done(self, run: CheckRun) -> None:
        """One line per finished check."""
        counts = [f"{run.count(verdict)} {verdict}" for verdict in Verdict if run.count(verdict)]
        self._steps.record(StageTime(name=run.name, seconds=run.seconds, rows=0), ", ".join(counts))


@contextmanager
def _open(options: AuditOptions, place: str, overrides: Sequence[str]) -> Iterator[SampleSet]:
    """The sample set; somebody's Parquet needs no Spark."""
    if options.samples is not None:
        try:
            groups = [parse_group(text) for text in options.groups]
        except ValueError as error:
            raise ConfError(f"--group {error}") from error
        labels = [name.strip() for name in (options.labels or "").split(",") if name.strip()]
        yield foreign(options.samples, key=options.key or "", time=options.time or "", labels=labels, groups=groups)
        return
    with session("audit", options.warehouse, place, overrides) as spark:
        context = open_run(spark, options.warehouse, place, overrides).context
        if options.trainset is not None:
            yield own_trainset(context, options.trainset)
        elif options.first is not None and options.last is not None:
            yield own_days(context, day_range(options.first, options.last))
        else:
            yield own_days(context, [])


def show(found: AuditReport) -> None:
    """Everything that did not pass, one row each; how many passed, per check."""
    table = Table("check", "subject", "verdict", "what", "count", "examples")
    for finding in found.of(Verdict.LEAK, Verdict.SUSPECT, Verdict.NOT_CHECKABLE):
        verdict = f"[{COLOURS[finding.verdict]}]{finding.verdict}[/]"
        count = "" if finding.count is None else f"{finding.count:,}"
        examples = escape("\n".join(finding.examples))
        table.add_row(finding.check, escape(finding.subject), verdict, escape(finding.what), count, examples)
    for run in found.checks:
        passed = run.count(Verdict.PASS)
        if passed:
            table.add_row(run.name, f"{passed} subjects", f"[{COLOURS[Verdict.PASS]}]pass[/]", "", "", "")
    console.print(table)
    if found.alarmed:
        leaks, suspects = len(found.of(Verdict.LEAK)), len(found.of(Verdict.SUSPECT))
        console.print(f"[bold red]✗ {leaks} leaks, {suspects} suspects[/]")
    else:
        console.print("[green]✓[/] no leak and no suspect; what is not checkable is listed above")


def write(found: AuditReport, out: Path) -> tuple[Path, Path]:
    """audit.json and audit.html, which asks the network for nothing."""
    out.mkdir(parents=True, exist_ok=True)
    data, page = out / REPORT_FILE, out / PAGE_FILE
    data.write_text(found.model_dump_json(indent=1) + "\n", encoding="utf-8")
    environment = Environment(loader=PackageLoader("jobs", "."), undefined=StrictUndefined, autoescape=True)
    text = environment.get_template(TEMPLATE).render(report=found, verdicts=list(Verdict))
    page.write_text(text, encoding="utf-8")
    return data, page
