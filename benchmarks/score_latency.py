"""How long a request takes: one user with 100 and with 500 candidates, on one core, encoding and graph apart.

python -m benchmarks.score_latency --folder <published folder> [--folder …] [--requests 500] [--rounds 3]

The folders take turns, round by round, so that a busy minute of the machine is no single model's.

A request is rows of raw features in memory: the user's columns are one example's of the folder, the candidates' those
of all examples in turn. The figures go under `score_latency` in build/bench/operations.json, by model and round; other
keys of the file stay.
"""

from __future__ import annotations

import argparse
import json
import os
import time
import uuid
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from features.schema import sequence_name
from training.scorer import Scorer, graph_inputs, read_examples

CANDIDATES = (100, 500)
WARM_UP = 20
KEY = "score_latency"


def request(examples: pa.Table, scorer: Scorer, candidates: int) -> pa.Table:
    """One user's rows: [candidates] rows, the columns about the user and the moment all alike."""
    rows = examples.take(pa.array(np.arange(candidates) % len(examples)))
    sequences = {sequence_name(s.name, field.name) for s in scorer.trainset.sequences for field in s.fields}
    for place, field in enumerate(rows.schema):
        if field.name in sequences or field.name.startswith("user_"):
            same = examples.slice(0, 1)[field.name].take(pa.array(np.zeros(candidates, np.int64)))
            rows = rows.set_column(place, field, same)
    return rows


def percentiles(work: Callable[[], object], times: int) -> dict[str, float]:
    """p50 and p99 of the milliseconds that a piece of work takes, after a warm-up; by the clock, and of processor time.

    On a core of its own the two are alike; where others want the core, only the second is the work's.
    """
    for _ in range(min(WARM_UP, times)):
        work()
    taken = np.empty((2, times))
    for turn in range(times):
        began = np.array([time.perf_counter(), time.process_time()])
        work()
        taken[:, turn] = (np.array([time.perf_counter(), time.process_time()]) - began) * 1e3
    (p50, cpu_p50), (p99, cpu_p99) = np.quantile(taken, [0.5, 0.99], axis=1).round(3).tolist()
    return {"p50_ms": p50, "p99_ms": p99, "cpu_p50_ms": cpu_p50, "cpu_p99_ms": cpu_p99}


def measure(folder: str, requests: int, candidates: Sequence[int] = CANDIDATES) -> dict[str, Any]:
    """Figures of a published folder: candidates → part → percentiles; on one of the process's cores."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        scorer = Scorer.open(folder, threads=1, examples=True)
        examples, _ = read_examples(Path(folder))
        found: dict[str, Any] = {"model": scorer.contents.model, "requests": requests, "cores": 1}
        for count in candidates:
            rows = request(examples, scorer, count)
            inputs = graph_inputs(scorer.encoder.encode(rows), scorer.trainset)
            found[f"{count}_candidates"] = {
                "graph": percentiles(partial(scorer.run, inputs), requests),
                "encoding": percentiles(partial(scorer.encoder.encode, rows), requests),
            }
    finally:
        os.sched_setaffinity(0, cores)
    return found


def add_to(path: Path, key: str, value: Any) -> None:
    """Set one key of a JSON file, and leave its others as they are."""
    kept = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex}.draft")
    draft.write_text(json.dumps(kept | {key: value}, indent=1) + "\n", encoding="utf-8")
    draft.rename(path)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(prog="score_latency", description="Latency of one request on one core.")
    parser.add_argument("--folder", required=True, action="append", help="a published folder on this machine")
    parser.add_argument("--requests", type=int, default=500, help="per round, size and part")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("build/bench/operations.json"))
    options = parser.parse_args(arguments)
    found: dict[str, list[dict[str, Any]]] = {}
    for _ in range(options.rounds):
        for folder in options.folder:
            measured = measure(folder, options.requests)
            found.setdefault(measured["model"], []).append(measured)
    add_to(options.out, KEY, found)
    print(json.dumps({KEY: found}, indent=1))


if __name__ == "__main__":
    main()
