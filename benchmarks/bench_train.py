"""`make bench-train`: what a training step costs beside the peers' and its limit; → build/bench/train.json.

Parts; each of their groups is kept, and not measured again under the same settings, code and machine (`--again`):
  twin     losses of ours and of the peers, step by step in float64 from equal weights: are they the same training?
  steps    samples/s of the step alone on resident batches, per model, s and rows: ours, the peers', matrix products
  ranks    two Horovod ranks of one core each beside two processes that know nothing of each other; bytes exchanged
  fit      samples/s of each side's own loader and `fit`
  profile  the operators that take our step's time
  quality  AUC of lazy and of dense updates on simulated logs (hours; not among the parts that run unless named)
Arms of a group take turns in one run, in processes of their own that are pinned to the same cores.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks.step_teams import ROOT
from benchmarks.train_parts import DONE_BY, PEERS, Bench, console, cores
from benchmarks.train_quality import LEARNING_RATES
from benchmarks.train_report import OURS_COMPILED, by_name, kept, on_gpu, ratios, show

USUAL = tuple(part for part in DONE_BY if part != "quality")
ON_GPU = (8192, 65536)


def options_of(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="bench_train", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--parts", nargs="+", choices=tuple(DONE_BY), default=USUAL)
    parser.add_argument("--models", nargs="+", choices=tuple(PEERS), default=tuple(PEERS))
    parser.add_argument("--rows", type=int, nargs="+", default=(10**5, 10**6, 10**7), help="of all tables, DeepFM")
    parser.add_argument("--din-rows", type=int, default=10**6, help="the same of DIN, and of the part fit")
    parser.add_argument("--twin-rows", type=int, nargs="+", default=(10**6, 10**7))
    parser.add_argument("--ranks-rows", type=int, default=10**6)
    parser.add_argument("--values", nargs="+", default=("full",), help="gradients of the table between ranks travel so")
    parser.add_argument("--skews", type=float, nargs="+", default=(1.05, 0.0), help="s of Zipf")
    parser.add_argument("--batches", type=int, nargs="+", help="rows of a step; 4096, on a GPU 8192 and 65536")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--turn-seconds", type=float, default=2.0)
    parser.add_argument("--threads", type=int, default=len(cores()), help="of every arm but ranks")
    parser.add_argument("--fit-batches", type=int, default=40)
    parser.add_argument("--seed", type=int, default=2026)
    parser.add_argument("--without-peers", action="store_true", help="where .venv-parity is not")
    parser.add_argument("--trainset", type=Path, help="of the part quality: the folder of its trainset.json")
    parser.add_argument("--impressions", type=int, default=2_000_000, help="of simulated logs, without --trainset")
    parser.add_argument("--seeds", type=int, nargs="+", default=(1, 2, 3), help="of the part quality")
    parser.add_argument("--rates", type=float, nargs="+", default=LEARNING_RATES, help="the same")
    parser.add_argument("--compiled", nargs="+", choices=OURS_COMPILED, help="of the part steps: these of ours, too")
    parser.add_argument("--again", action="store_true", help="measure what is known, too")
    parser.add_argument("--report", action="store_true", help="measure nothing; put together what was measured")
    parser.add_argument("--out", type=Path, default=Path("build/bench"))
    options = parser.parse_args(arguments)
    options.batches = options.batches or (ON_GPU if options.device == "cuda" else (4096,))
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch sees no GPU here")
    return options


def settings_of(options: argparse.Namespace) -> dict[str, Any]:
    """What figures that stand beside each other have in common."""
    named = ("device", "repeats", "turn_seconds", "threads", "seed")
    machine = {"platform": platform.platform(), "cores": len(cores()), "processor": _processor()}
    if options.device == "cuda":
        machine["gpu"] = torch.cuda.get_device_name()
    return {name: getattr(options, name) for name in named} | {"code": _code(), "machine": machine}


def _processor() -> str:
    listed = Path("/proc/cpuinfo")
    lines = listed.read_text(encoding="utf-8").splitlines() if listed.is_file() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


def _code() -> str:
    """Digest of what is measured: training/ and the arms."""
    digest = hashlib.sha256()
    files = [*(ROOT / "training").rglob("*.py"), *(ROOT / "benchmarks").glob("step_*.py")]
    for file in sorted(files):
        digest.update(file.relative_to(ROOT).as_posix().encode() + file.read_bytes())
    return digest.hexdigest()[:12]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what is not known, put all together, show."""
    options = options_of(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    settings = settings_of(options)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        bench = Bench(options=options, settings=settings, progress=progress, known=kept(options.out, settings))
        for part in () if options.report else options.parts:
            DONE_BY[part](bench)
    parts = kept(options.out, settings)
    seen = ratios(parts)
    found = {"settings": settings, "gpu": on_gpu(parts), "ratios": by_name(seen), "parts": parts}
    target = options.out / "train.json"
    target.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    show(found, seen, console)
    console.print(f"→ {target}", soft_wrap=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
