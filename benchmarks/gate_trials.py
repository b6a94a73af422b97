"""`make bench-gate`: how often the gate is wrong, on simulated days and shipped conf; → build/bench/operations.json.

planted  bad candidates of each kind: does the gate stop them, and by which rules
twins    the champion's model trained with another seed: how often it is stopped
worse    a candidate whose AUC is lower by 0.005: how often it is stopped
evidence the drop of AUC that days of several sizes tell with 90 % power
seconds  one verdict on 500,000 rows, three tasks, and every segment

Of the file only its own keys are written; others belong to other benchmarks.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.gate_days import PLANTED, SEED_NOISE, GateDay, Noise
from benchmarks.operations import OPERATIONS_FILE, merge_into
from features.manifest import Frozen
from jobs.settings import Settings
from training.bootstrap import Judged, auc
from training.gate import judge
from training.gate_conf import GateConf
from training.verdict import Verdict

WORSE_BY = 0.005
LARGE_DAY = 500_000
FIRST_SEED = {"twins": 0, "worse": 100_000, "sizes": 10_000}
console = Console(highlight=False)


def options_of(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="gate_trials", description=__doc__)
    parser.add_argument("--trials", type=int, default=200, help="of twins, and of worse candidates")
    parser.add_argument("--rows", type=int, default=80_000, help="impressions of a trial's gate day")
    parser.add_argument("--sizes", type=int, nargs="+", default=(15_000, 30_000, 60_000, 120_000, 240_000))
    parser.add_argument("--place", default="local", help="whose conf")
    parser.add_argument("--set", nargs="*", default=(), help="conf values, e.g. gate.rounds=200")
    parser.add_argument("--out", type=Path, default=Path("build/bench"))
    return parser.parse_args(arguments)


def worse_noise(by: float, rows: int = 300_000, seed: int = 1) -> Noise:
    """The noise per impression with which a model's AUC of `enter` is lower by so much than that of its twin."""
    day = GateDay.simulate(rows, seed)

    def lost(impression: float) -> float:
        noise = Noise(key=SEED_NOISE.key, impression=impression)
        return _auc(day, SEED_NOISE, seed) - _auc(day, noise, seed)

    low, high = SEED_NOISE.impression, 2.0
    for _ in range(20):
        middle = (low + high) / 2
        low, high = (middle, high) if lost(middle) < by else (low, middle)
    return Noise(key=SEED_NOISE.key, impression=(low + high) / 2)


def _auc(day: GateDay, noise: Noise, seed: int) -> float:
    scores = day.candidate(seed, noise).scores["enter"]
    return auc(Judged.of(scores, day.labels["enter"], day.weights["enter"], day.user))


class Trial(Frozen):
    """One verdict: on which kind of candidate, and what became of it."""

    kind: Literal["twins", "worse"]
    number: int
    rows: int
    rounds: int
    stopped_by: tuple[str, ...]
    auc_difference: float


def trial(kind: Literal["twins", "worse"], number: int, rows: int, noise: Noise, conf: GateConf) -> Trial:
    """A candidate with a noise of its own, on a day and beside a champion of its own; a function of (kind, number)."""
    verdict = judged(rows, noise, conf, seed=3 * number + FIRST_SEED[kind])
    difference = verdict.tasks[0].auc_difference
    return Trial(
        kind=kind,
        number=number,
        rows=rows,
        rounds=conf.rounds,
        stopped_by=verdict.stopped_by,
        auc_difference=difference.point if difference else math.nan,
    )


def judged(rows: int, noise: Noise, conf: GateConf, seed: int) -> Verdict:
    """The gate's verdict on one simulated day."""
    day = GateDay.simulate(rows, seed)
    return judge(day.candidate(seed + 1, noise), day.champion(seed + 2), day.evidence(), conf)


def run_trials(count: int, rows: int, worse: Noise, conf: GateConf, kept: Path) -> list[Trial]:
    """Twins and worse candidates in turn. Each is kept when it is done: a run that was cut off goes on."""
    kept.parent.mkdir(parents=True, exist_ok=True)
    lines = kept.read_text(encoding="utf-8").splitlines() if kept.exists() else []
    there = [Trial.model_validate_json(line) for line in lines]
    done = {(one.kind, one.number): one for one in there if (one.rows, one.rounds) == (rows, conf.rounds)}
    noises: dict[Literal["twins", "worse"], Noise] = {"twins": SEED_NOISE, "worse": worse}
    with kept.open("a", encoding="utf-8") as sink:
        for number in track(range(count), "trials", console=console):
            for kind, noise in noises.items():
                if (kind, number) not in done:
                    done[kind, number] = trial(kind, number, rows, noise, conf)
                    sink.write(done[kind, number].model_dump_json() + "\n")
                    sink.flush()
    return [one for (_, number), one in done.items() if number < count]


def stopped(trials: Sequence[Trial]) -> dict[str, Any]:
    """Share that was stopped, and how many by which rule (a verdict may be stopped by several)."""
    count = sum(bool(one.stopped_by) for one in trials)
    return {
        "trials": len(trials),
        "stopped": count,
        "share": count / len(trials),
        "by_rule": dict(Counter(rule for one in trials for rule in one.stopped_by)),
        "mean_auc_difference": statistics.mean(one.auc_difference for one in trials),
    }


def planted(rows: int, conf: GateConf, seed: int = 7) -> dict[str, dict[str, Any]]:
    """Bad candidate → the rule that is meant to stop it, and those that do."""
    day = GateDay.simulate(rows, seed)
    champion, evidence = day.champion(seed + 1), day.evidence()
    found = {}
    for one in PLANTED:
        verdict = judge(one.make(day, seed + 2), champion, evidence, conf)
        by = verdict.stopped_by
        found[one.name] = {"meant": one.rule, "stopped_by": by, "stopped": one.rule in by}
    return found


def evidence_of(sizes: Sequence[int], conf: GateConf, days: int = 5) -> dict[str, dict[str, float]]:
    """Rows of the gate day → positives, users, and the drop of AUC of the main task that is told with 90 % power."""
    found = {}
    for rows in sizes:
        mains = [judged(rows, SEED_NOISE, conf, seed=FIRST_SEED["sizes"] + number).tasks[0] for number in range(days)]
        found[str(rows)] = {
            "positives": statistics.mean(task.positives for task in mains),
            "users": statistics.mean(task.users for task in mains),
            "detectable_drop": statistics.mean(task.detectable_drop or np.nan for task in mains),
        }
    return found


def rows_needed(evidence: Mapping[str, Mapping[str, float]], drop: float, allowed: float) -> int:
    """Rows that tell a drop: what is told beyond the allowed drop falls with the root of the rows."""
    needed = [
        int(rows) * ((one["detectable_drop"] - allowed) / (drop - allowed)) ** 2 for rows, one in evidence.items()
    ]
    return int(round(statistics.median(needed), -3))


def seconds_of(rows: int, conf: GateConf, repeats: int = 3) -> dict[str, float]:
    """Processor and wall-clock seconds of one verdict, the best of some; the scores are there already."""
    day = GateDay.simulate(rows, 1)
    candidate, champion, evidence = day.candidate(2), day.champion(3), day.evidence()
    taken = []
    for _ in range(repeats):
        start, cpu = time.perf_counter(), time.process_time()
        judge(candidate, champion, evidence, conf)
        taken.append((time.process_time() - cpu, time.perf_counter() - start))
    return {
        "rows": rows,
        "tasks": 3,
        "segments": len(evidence.segments.rows),
        "cpu_s": min(taken)[0],
        "s": min(taken)[1],
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Run all of it, show it, and write it."""
    options = options_of(arguments)
    conf = Settings.load(options.place, options.set).gate
    assert conf is not None
    wrong = planted(options.rows, conf)
    kept = options.out / "gate_trials.jsonl"
    every = run_trials(options.trials, options.rows, worse_noise(WORSE_BY), conf, kept)
    twins, lower = (stopped([one for one in every if one.kind == kind]) for kind in ("twins", "worse"))
    evidence = evidence_of(options.sizes, conf)
    needed = rows_needed(evidence, WORSE_BY, conf.main.max_auc_drop)
    found = {
        "planted": len(wrong),
        "planted_stopped": sum(one["stopped"] for one in wrong.values()),
        "twins_false_stop": twins["share"],
        "worse_stopped": lower["share"],
        "rows": options.rows,
        "gate": {
            "planted": wrong,
            "twins": twins,
            "worse": lower,
            "evidence": evidence,
            "rows_needed": needed,
            "rounds": conf.rounds,
            "verdict_seconds": seconds_of(LARGE_DAY, conf),
        },
    }
    merge_into(options.out / OPERATIONS_FILE, found)
    show(found)


def show(found: Mapping[str, Any]) -> None:
    """Tables of what was found."""
    table = Table("planted candidate", "meant to be stopped by", "is stopped by")
    for name, one in found["gate"]["planted"].items():
        table.add_row(name, one["meant"], ", ".join(one["stopped_by"]) or "[red]nothing[/]")
    console.print(table)
    table = Table("rows", "positives", "users", "told with 90 % power")
    for rows, one in found["gate"]["evidence"].items():
        table.add_row(
            f"{int(rows):,}", f"{one['positives']:,.0f}", f"{one['users']:,.0f}", f"{one['detectable_drop']:.4f}"
        )
    console.print(table)
    for name, key in (("twins", "twins_false_stop"), ("worse by 0.005", "worse_stopped")):
        one = found["gate"]["twins" if name == "twins" else "worse"]
        console.print(f"{name}: {one['stopped']} of {one['trials']} stopped ({found[key]:.1%}), {one['by_rule']}")
    taken = found["gate"]["verdict_seconds"]
    console.print(f"rows needed for {WORSE_BY}: {found['gate']['rows_needed']:,}")
    console.print(f"one verdict on {taken['rows']:,} rows: {taken['cpu_s']:.1f} s of a processor, {taken['s']:.1f} s")


if __name__ == "__main__":
    main()
