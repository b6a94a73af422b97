"""`python -m tests.chaos --kills 50 --seed 7`: a table of all kills, and build/bench/chaos.json."""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from tests.chaos.driver import quick_session
from tests.chaos.trials import Chaos, Trial, run_trials


def main() -> int:
    """0 when every kill left all that was committed readable, and every rerun came to the same content."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--kills", type=int, default=50, help="how many drivers are killed")
    parser.add_argument("--seed", type=int, default=7, help="where they are killed follows from it")
    parser.add_argument("--out", type=Path, default=Path("build/bench/chaos.json"))
    asked = parser.parse_args()
    console = Console(highlight=False)
    console.print(f"{asked.kills} kills, seed {asked.seed}")
    started = time.monotonic()
    bars = (TextColumn("kills"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with tempfile.TemporaryDirectory(prefix="limelight-chaos-") as folder, quick_session(Path(folder)) as spark:
        chaos = Chaos(spark, Path(folder))
        try:
            with Progress(*bars, console=console) as progress:
                bar = progress.add_task("", total=asked.kills)

                def done(trial: Trial) -> None:
                    progress.advance(bar)
                    # An hour is long, and a run that is cut off should have said what it saw.
                    console.print(f"{mark(trial)} {trial.state}, {trial.point}: {trial.seconds:.1f} s")

                trials, survived = run_trials(chaos, asked.kills, asked.seed, done)
        finally:
            chaos.close()
    whole = sum(not trial.problems for trial in trials)
    console.print(shown(trials))
    for trial in trials:
        for problem in trial.problems:
            console.print(f"[red]✗[/] {trial.state}, {trial.point}: {problem}", soft_wrap=True)
    seconds = time.monotonic() - started
    console.print(f"{whole} of {len(trials)} kills left all readable and were made good ({seconds:.0f} s)")
    summary = {
        "kills": len(trials),
        "whole": whole,
        "seed": asked.seed,
        "ended_before_the_kill": survived,
        "seconds": round(seconds, 1),
        "trials": [asdict(trial) for trial in trials],
    }
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    asked.out.write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    console.print(f"→ {asked.out}")
    return int(whole < len(trials))


def mark(trial: Trial) -> str:
    """Whether all was as it has to be."""
    return "[red]✗[/]" if trial.problems else "[green]✓[/]"


def shown(trials: Sequence[Trial]) -> Table:
    """One row per kill."""
    table = Table("", "warehouse", "killed", "last file it began to create", "committed", "orphans", "s", "")
    for number, trial in enumerate(trials, start=1):
        table.add_row(
            str(number), trial.state, trial.point, trial.last_step, str(trial.committed), str(trial.orphans),
            f"{trial.seconds:.1f}", mark(trial),
        )  # fmt: skip
    return table


if __name__ == "__main__":
    raise SystemExit(main())
