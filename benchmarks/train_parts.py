"""The parts of `make bench-train`: which arms a group has, how they take turns, and what is kept of them."""

from __future__ import annotations

import argparse
import os
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress, TaskID

from benchmarks import train_quality
from benchmarks.step_arms import ArmSpec, ModelName, shown
from benchmarks.step_gemm import flops_of
from benchmarks.step_teams import ArmError, Rates, Team, Teams, in_turns
from benchmarks.train_report import keep

PEERS: dict[ModelName, tuple[str, ...]] = {"deepfm": ("deepctr",), "din": ("deepctr", "fuxictr")}
TWIN_STEPS, EXCHANGE_STEPS, PROFILED_STEPS = 5, 10, 5
RANKS = 2
WARM_UPS = 1
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
        values["cores"] = cores()[: self.options.threads] if self.options.device == "cpu" else ()
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


def cores() -> tuple[int, ...]:
    """Those that this process may run on."""
    return tuple(sorted(os.sched_getaffinity(0)))


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
        ours = ["shipped", "lazy_adam", *(bench.options.compiled or ())]
        usual = [bench.spec(group, "ours", variant) for variant in ours]
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
    if len(cores()) < RANKS:
        raise ArmError(f"the part ranks needs {RANKS} cores; leave it out with --parts")
    for skew, values in product(bench.options.skews, bench.options.values):
        group = Group(model="deepfm", skew=skew, rows=bench.options.ranks_rows, batch=bench.options.batches[0])
        name = f"{group.name} {values}"
        if bench.is_known("ranks", name):
            continue
        pinned = [bench.spec(group, "ours", "shipped", threads=1, cores=(core,)) for core in cores()[:RANKS]]
        pinned = [replace(spec, seed=spec.seed + number) for number, spec in enumerate(pinned)]
        rank = replace(pinned[0], side="ranks", cores=cores()[:RANKS], values=values)
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
