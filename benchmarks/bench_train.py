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
import os
import platform
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from benchmarks import train_quality
from benchmarks.step_arms import ArmSpec, ModelName
from benchmarks.step_gemm import flops_of
from benchmarks.step_teams import ROOT, ArmError, Rates, Team, Teams, in_turns
from benchmarks.train_report import keep, kept, on_gpu, ratios, show

PARTS = ("twin", "steps", "ranks", "fit", "profile", "quality")
USUAL = PARTS[:-1]
PEERS: dict[ModelName, tuple[str, ...]] = {"deepfm": ("deepctr",), "din": ("deepctr", "fuxictr")}
TWIN_STEPS, EXCHANGE_STEPS, PROFILED_STEPS = 5, 10, 5
RANKS = 2
WARM_UPS = 1
ON_GPU = (8192, 65536)
SHIPPED, MATCHED = ("shipped", "best"), ("adagrad", "adagrad_fused")
console = Console(highlight=False)


@dataclass(frozen=True, kw_only=True)
class Group:
    """A shape that arms share."""

    model: ModelName
    skew: float
    rows: int
    batch: int

    @property
    def name(self) -> str:
        """Model, s, rows and batch."""
        return f"{self.model} s={self.skew:g} {shown(self.rows)} b={self.batch}"

    def described(self) -> dict[str, Any]:
        """For the JSON."""
        return asdict(self) | {"rows": shown(self.rows), "of": self.name}


def shown(rows: int) -> str:
    """1000000 → "1e6", as in names of arms."""
    return f"{rows:.0e}".replace("e+0", "e")


@dataclass(frozen=True, kw_only=True)
class Bench:
    """What all parts share."""

    options: argparse.Namespace
    settings: dict[str, Any]
    progress: Progress
    known: dict[str, dict[str, dict[str, Any]]]

    @property
    def out(self) -> Path:
        """Where all of it goes."""
        return Path(self.options.out)

    def spec(self, group: Group, side: str, variant: str, **more: Any) -> ArmSpec:
        """An arm of a group."""
        values = asdict(group) | {"device": self.options.device, "threads": self.options.threads}
        values["cores"] = tuple(range(self.options.threads)) if self.options.device == "cpu" else ()
        return ArmSpec.of(values | {"side": side, "variant": variant, "seed": self.options.seed} | more)

    def is_known(self, part: str, group: str) -> bool:
        """Whether it need not be measured."""
        return not self.options.again and group in self.known.get(part, {})

    def keep(self, part: str, name: str, measured: dict[str, Any]) -> None:
        """Keep what was seen."""
        keep(self.out, part, name, {"settings": self.settings, **measured})

    @contextmanager
    def told(self, title: str, total: int) -> Iterator[Callable[[str, float], None]]:
        """A bar, and what moves it."""
        task: TaskID = self.progress.add_task(title, total=total)

        def done(name: str, rate: float) -> None:
            self.progress.update(task, advance=1, description=f"{title}: {name} {rate:,.0f}/s")
            if not console.is_terminal:
                console.print(f"{title}: {name} {rate:,.0f} samples/s, load {os.getloadavg()[0]:.1f}")

        yield done

    def turns(self, title: str, teams: Sequence[Team]) -> dict[str, Any]:
        """Arm → its rates."""
        with self.told(title, len(teams) * (self.options.repeats + WARM_UPS)) as done:
            seen = in_turns(teams, repeats=self.options.repeats, turn_s=self.options.turn_seconds, done=done)
        return {name: rates.summary() for name, rates in seen.items()}


def groups_of(options: argparse.Namespace) -> list[Group]:
    """DeepFM for every s and every number of rows; DIN for the first s and one number of rows."""
    found = []
    for batch in options.batches:
        if "deepfm" in options.models:
            found += [
                Group(model="deepfm", skew=skew, rows=rows, batch=batch)
                for skew in options.skews
                for rows in options.rows
            ]
        if "din" in options.models:
            found.append(Group(model="din", skew=options.skews[0], rows=options.din_rows, batch=batch))
    return found


def steps(bench: Bench) -> None:
    """As users have them, and the limit; then the same learning on both sides."""
    for group in groups_of(bench.options):
        peers = [peer for peer in PEERS[group.model] if not bench.options.without_peers]
        usual = [bench.spec(group, "ours", "shipped"), bench.spec(group, "ours", "lazy_adam")]
        usual += [bench.spec(group, peer, variant) for peer in peers for variant in SHIPPED]
        usual.append(bench.spec(group, "gemm", "products"))
        smallest = min(bench.options.rows)
        flat_from = shown(smallest) if group.model == "deepfm" and group.rows > smallest else ""
        if flat_from:
            usual.append(bench.spec(replace(group, rows=smallest), "ours", "shipped"))
        matched = [bench.spec(group, "ours", "adagrad")]
        matched += [bench.spec(group, peer, variant) for peer in peers for variant in MATCHED]
        for name, specs in ((group.name, usual), (f"{group.name} matched", matched)):
            if bench.is_known("steps", name):
                continue
            with Teams() as teams:
                arms = bench.turns(name, [teams.start(spec) for spec in specs])
            more = {"flat_from": flat_from, "flops": flops_of(usual[0])} if specs is usual else {}
            bench.keep("steps", name, {**group.described(), "arms": arms, **more})


def twin(bench: Bench) -> None:
    """Ours first, then the peers, one after the other: each has its losses, and nobody the time."""
    for group in groups_of(bench.options):
        wanted = bench.options.twin_rows if group.model == "deepfm" else (bench.options.din_rows,)
        if group.skew != bench.options.skews[0] or group.rows not in wanted or bench.is_known("twin", group.name):
            continue
        losses: dict[str, list[float]] = {}
        with bench.told(f"twin {group.name}", 1 + len(PEERS[group.model])) as done:
            for side in ("ours", *PEERS[group.model]):
                with Teams() as teams:
                    team = teams.start(bench.spec(group, side, "adagrad", dtype="float64", copied=True))
                    losses[side] = team.ask("losses", count=TWIN_STEPS)[0]["losses"]
                done(side, 0.0)
        apart = {
            peer: max(abs(a - b) for a, b in zip(losses["ours"], losses[peer], strict=True))
            for peer in PEERS[group.model]
        }
        bench.keep("twin", group.name, {**group.described(), "losses": losses, "apart": apart})


def ranks(bench: Bench) -> None:
    """Two ranks and two processes, each rank and each process on a core of its own; then the exchange taken apart."""
    if bench.options.device == "cuda":
        return  # two ranks on one GPU would say nothing of speed
    if (os.cpu_count() or 1) < RANKS:
        raise ArmError(f"the part ranks needs {RANKS} cores; leave it out with --parts")
    for skew, values in product(bench.options.skews, bench.options.values):
        group = Group(model="deepfm", skew=skew, rows=bench.options.ranks_rows, batch=bench.options.batches[0])
        name = f"{group.name} {values}"
        if bench.is_known("ranks", name):
            continue
        pinned = [bench.spec(group, "ours", "shipped", threads=1, cores=(core,)) for core in range(RANKS)]
        pinned = [replace(spec, seed=spec.seed + number) for number, spec in enumerate(pinned)]
        rank = replace(pinned[0], side="ranks", cores=tuple(range(RANKS)), values=values)
        with Teams() as teams:
            both = teams.start(rank, ranks=RANKS, name="two ranks")
            arms = bench.turns(f"ranks {name}", [both, teams.start(*pinned, name="two processes")])
            exchange = _mean(both.ask("exchange", count=EXCHANGE_STEPS))
            stock = _mean(both.ask("stock", count=EXCHANGE_STEPS))
        described = {**group.described(), "of": name, "values": values}
        bench.keep("ranks", name, {**described, "arms": arms, "exchange": exchange, "stock": stock})


def _mean(answers: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Of all ranks."""
    return {name: statistics.mean(answer[name] for answer in answers) for name in answers[0]}


def fit(bench: Bench) -> None:
    """Every side by its own `fit`, from its own loader, as shipped."""
    for model in bench.options.models:
        skew, batch = bench.options.skews[0], bench.options.batches[0]
        group = Group(model=model, skew=skew, rows=bench.options.din_rows, batch=batch)
        name = f"{group.name} {bench.options.fit_batches} batches"
        if bench.is_known("fit", name):
            continue
        rows, data = (
            bench.options.fit_batches * group.batch,
            bench.out.resolve() / "train-data" / name.replace(" ", "-"),
        )
        sides = ("ours", *(peer for peer in PEERS[group.model] if not bench.options.without_peers))
        with Teams() as teams, bench.told(f"fit {group.name}", len(sides) * bench.options.repeats) as done:
            all_teams = [teams.start(bench.spec(group, side, "shipped"), is_built=False) for side in sides]
            rates = {team.name: Rates() for team in all_teams}
            for _ in range(bench.options.repeats):
                for team in all_teams:
                    seconds = team.ask("fit", rows=rows, folder=str(data / team.spec.side))[0]["seconds"]
                    rates[team.name].values.append(rows / seconds)
                    rates[team.name].loads.append(os.getloadavg()[0])
                    done(team.name, rows / seconds)
        arms = {name.replace("shipped", "fit"): one.summary() for name, one in rates.items()}
        bench.keep("fit", name, {**group.described(), "arms": arms, "batches": bench.options.fit_batches})


def profile(bench: Bench) -> None:
    """Our step, by operators."""
    for group in groups_of(bench.options):
        if bench.is_known("profile", group.name):
            continue
        with Teams() as teams, bench.told(f"profile {group.name}", 1) as done:
            team = teams.start(bench.spec(group, "ours", "shipped"))
            team.rate(2)
            seen = team.ask("profile", count=PROFILED_STEPS)[0]["operators"]
            done("ours", 0.0)
        bench.keep("profile", group.name, {**group.described(), "operators": seen})


def quality(bench: Bench) -> None:
    """On the train set that was named, or on that of simulated logs."""
    options = bench.options
    made = options.trainset or train_quality.simulated(bench.out, options.impressions, console.print)
    name = f"{made.resolve().name} seeds {' '.join(map(str, options.seeds))} {' '.join(options.values)}"
    if bench.is_known("quality", name):
        return
    folder = bench.out / "train-quality" / str(bench.settings["code"]) / made.resolve().name
    arms = train_quality.arms_of(options.values)
    seen = train_quality.measure(made.resolve(), folder.resolve(), arms, options.seeds, options.rates, console.print)
    bench.keep("quality", name, {"of": name, "rates": list(options.rates), "optimisers": seen})


DONE_BY: dict[str, Callable[[Bench], None]] = {
    "twin": twin,
    "steps": steps,
    "ranks": ranks,
    "fit": fit,
    "profile": profile,
    "quality": quality,
}


def options_of(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="bench_train", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=USUAL)
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
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="of every arm but ranks")
    parser.add_argument("--fit-batches", type=int, default=40)
    parser.add_argument("--seed", type=int, default=2026)
    parser.add_argument("--without-peers", action="store_true", help="where .venv-parity is not")
    parser.add_argument("--trainset", type=Path, help="of the part quality: the folder of its trainset.json")
    parser.add_argument("--impressions", type=int, default=2_000_000, help="of simulated logs, without --trainset")
    parser.add_argument("--seeds", type=int, nargs="+", default=(1, 2, 3), help="of the part quality")
    parser.add_argument("--rates", type=float, nargs="+", default=train_quality.LEARNING_RATES, help="the same")
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
    machine = {"platform": platform.platform(), "cores": os.cpu_count(), "processor": _processor()}
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
    settings = settings_of(options)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        bench = Bench(options=options, settings=settings, progress=progress, known=kept(options.out, settings))
        for part in () if options.report else options.parts:
            DONE_BY[part](bench)
    parts = kept(options.out, settings)
    seen = ratios(parts)
    found = {"settings": settings, "gpu": on_gpu(parts), "ratios": [asdict(one) for one in seen], "parts": parts}
    target = options.out / "train.json"
    target.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    show(found, seen, console)
    console.print(f"→ {target}", soft_wrap=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
