"""`make chaos`: a fault at a random point, again and again; nothing may be lost by it, and the end is as ever.

Steps of a trial:
  1. state      a copy of what was prepared
  2. fault      of one kind (kinds.py), at a point that is a function of (seed, kind, number)
  3. look       is anything visible in part? committed partitions, checkpoints, a training that says it is complete,
                the verdict, the published folder, the champion
  4. rerun      the same command, to its end; where the message names a remedy, after the remedy
  5. compare    with the run that nobody disturbed: digests of content, weights, losses, metrics, the champion's graph

A trial is *lost* where 3 finds something or 4 does not come to its end, and *diverged* where 5 does. Each is kept when
it is done (chaos.jsonl beside the table's JSON): a run that was cut off goes on.
"""

from __future__ import annotations

import argparse
import random
import signal
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from benchmarks.operations import OPERATIONS_FILE, merge_into
from tests.chaos.kinds import WEIGHTS, Kinds
from tests.chaos.outcome import Outcome, UnableError, dealt, read, summary

KEPT_FILE = "chaos.jsonl"
MAX_DRAWS = 8  # of a point: a run may end before its fault comes
console = Console(highlight=False)


def main(arguments: Sequence[str] | None = None) -> int:
    """0 when nothing was lost and nothing diverged."""
    asked = options_of(arguments)
    signal.signal(signal.SIGTERM, _stop)
    weights = {kind: weight for kind, weight in WEIGHTS.items() if kind in asked.kinds}
    console.print(f"{asked.trials} trials of {len(weights)} kinds, seed {asked.seed}")
    bars = (TextColumn("trials"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with (
        tempfile.TemporaryDirectory(prefix="limelight-chaos-", ignore_cleanup_errors=True) as folder,
        Progress(*bars, console=console) as progress,
    ):
        bar = progress.add_task("", total=asked.trials)
        kinds = Kinds(Path(folder), kept=asked.keep or Path(folder))

        def told(outcome: Outcome) -> None:
            progress.advance(bar)
            # An hour is long, and a run that is cut off should have said what it saw.
            mark = "[green]✓[/]" if outcome.whole else "[red]✗[/]"
            console.print(f"{mark} {outcome.kind}: {escape(outcome.point)} {outcome.seconds:.0f} s", soft_wrap=True)

        try:
            outcomes, unable = run_trials(kinds, dealt(asked.trials, weights), asked.seed, asked.out / KEPT_FILE, told)
        finally:
            kinds.close()
    found = summary(outcomes) | {"seed": asked.seed, "unable": unable}
    merge_into(asked.out / OPERATIONS_FILE, {"chaos": found})
    show(outcomes, unable)
    console.print(f"→ {asked.out / OPERATIONS_FILE}")
    return int(not all(one.whole for one in outcomes))


def options_of(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description="Faults at random points.")
    parser.add_argument(
        "--trials", type=int, default=sum(WEIGHTS.values()), help="in all; dealt out over the kinds by their weight"
    )
    parser.add_argument("--seed", type=int, default=7, help="where the faults come follows from it")
    parser.add_argument("--out", type=Path, default=Path("build/bench"), help=f"of {KEPT_FILE} and {OPERATIONS_FILE}")
    parser.add_argument(
        "--keep", type=Path, help="folder to keep the dailies' warehouse in: it takes minutes to prepare"
    )
    parser.add_argument("--kinds", default=",".join(WEIGHTS), help="some of them, by commas")
    asked = parser.parse_args(arguments)
    asked.kinds = asked.kinds.split(",")
    if unknown := [kind for kind in asked.kinds if kind not in WEIGHTS]:
        parser.error(f"no such kinds: {', '.join(unknown)}; there are {', '.join(WEIGHTS)}")
    return asked


def run_trials(
    kinds: Kinds,
    wanted: Sequence[tuple[str, int]],
    seed: int,
    kept: Path,
    done: Callable[[Outcome], None] = lambda _: None,
) -> tuple[list[Outcome], dict[str, str]]:
    """One after the other; those that a file has already are not tried again.

    Returns:
        The trials, and for each kind that this machine cannot bring about the reason.
    """
    kept.parent.mkdir(parents=True, exist_ok=True)
    known = read(kept)
    # Without what a cut-off run left of a line: the next one would be joined to it.
    kept.write_text("".join(one.model_dump_json() + "\n" for one in known), encoding="utf-8")
    there = {(one.kind, one.number): one for one in known if one.seed == seed}
    outcomes: list[Outcome] = []
    unable: dict[str, str] = {}
    with kept.open("a", encoding="utf-8") as sink:
        for name, number in wanted:
            if name in unable:
                continue
            outcome = there.get((name, number))
            if outcome is None:
                try:
                    outcome = one_trial(kinds, name, number, seed)
                except UnableError as reason:
                    unable[name] = str(reason)
                    continue
                sink.write(outcome.model_dump_json() + "\n")
                sink.flush()
            outcomes.append(outcome)
            done(outcome)
    return outcomes, unable


def one_trial(kinds: Kinds, name: str, number: int, seed: int) -> Outcome:
    """A function of its arguments, but for the machine's timing; drawn again when the run was over before the fault.

    Raises:
        UnableError: this machine cannot bring it about.
        RuntimeError: no fault came in time.
    """
    kind = kinds.kind(name)
    for draw in range(MAX_DRAWS):
        begun = time.monotonic()
        found = kind.trial(random.Random(f"{seed} {name} {number} {draw}"))
        if found is not None:
            seconds = round(time.monotonic() - begun, 1)
            return Outcome(
                kind=name, number=number, seed=seed, point=found.point, said=found.said, lost=tuple(found.lost),
                diverged=tuple(found.diverged), seconds=seconds,
            )  # fmt: skip
    raise RuntimeError(f"{name}: {MAX_DRAWS} runs ended before their fault came")


def _stop(*_: object) -> None:
    """As by Ctrl-C: what was started is ended, and what was mounted unmounted."""
    raise KeyboardInterrupt


def show(outcomes: Sequence[Outcome], unable: dict[str, str]) -> None:
    """One row per kind, and every trial that was not whole."""
    table = Table("kind", "trials", "lost", "diverged", "seconds (median)")
    found = summary(outcomes)
    kinds = found["kinds"]
    assert isinstance(kinds, dict)
    for name, one in [*kinds.items(), ("all", found)]:
        figures = [str(one.get(key, "")) for key in ("trials", "lost", "diverged", "seconds")]
        table.add_row(name, *figures)
    console.print(table)
    for name, reason in unable.items():
        console.print(f"[yellow]{name} was not tried:[/] {reason}", soft_wrap=True)
    for one in outcomes:
        for problem in (*one.lost, *one.diverged):
            console.print(f"[red]✗[/] {one.kind} {one.number}, {escape(one.point)}: {escape(problem)}", soft_wrap=True)


if __name__ == "__main__":
    raise SystemExit(main())
