"""Facts as a warehouse of some weeks has them, built by hand: names may be hostile, and anything may be missing."""

from __future__ import annotations

import datetime

from features.evaluation import FEATURE_EDGES, SCORE_EDGES, Evaluation, Oov, TaskFigures
from jobs.page.facts import Facts, ModelFacts, RunFacts
from jobs.page.lineage import Lineage, Read
from jobs.summary import StageTime, Summary
from training.bootstrap import Interval
from training.calibration_curve import Bin
from training.result import TrainResult
from training.verdict import Check, Days, Figures, SegmentVerdict, TaskVerdict, Verdict
from training.version_history import Move, Version

FIRST = datetime.date(2026, 1, 1)
HOSTILE = "<script>alert('x')</script>&\"<img src=x onerror=alert(1)>"
DAYS = Days(train=("2025-12-30",), valid=("2025-12-31",), seen_until="2025-12-31")


def day(place: int) -> datetime.date:
    """Days after FIRST."""
    return FIRST + datetime.timedelta(days=place)


def figures(place: int) -> Figures:
    """Something that moves."""
    wave = (place * 37 % 11) / 1000
    return Figures(auc=0.72 + wave, gauc=0.70 + wave, logloss=0.5 - wave, pcoc=0.97 + 5 * wave)


def task(name: str, place: int, *, champion: bool) -> TaskVerdict:
    """One judged task."""
    between = Interval(low=-0.003, point=0.001, high=0.004) if champion else None
    return TaskVerdict(
        task=name, rows=16_000, positives=3_000, negatives=13_000, users=900, candidate=figures(place),
        champion=figures(place + 1) if champion else None, auc_interval=None, gauc_interval=None,
        auc_difference=between, gauc_difference=between, score_psi=0.012 if champion else None,
    )  # fmt: skip


def segment(name: str, place: int) -> SegmentVerdict:
    """One segment of the main task, wider where there are fewer rows."""
    wide = 0.004 + 0.002 * place
    around = Interval(low=-wide, point=0.001, high=wide)
    return SegmentVerdict(
        segment=name, task="enter", rows=4_000, positives=700, negatives=3_300, users=300, candidate=figures(place),
        champion=figures(place + 2), auc_difference=around, gauc_difference=None, calibration_loss=None,
        not_judged=None,
    )  # fmt: skip


def verdict(model: str, place: int, *, passed: bool = True, words: str = "gift") -> Verdict:
    """Of a run on day `place`; `words` is the name of its second task and of a segment."""
    champion = "version 2" if place else None
    names = ("new users", "new anchors", "heavy users", f"category {words}")
    stop = Check(
        rule="floors", task="enter", figure="AUC", seen=0.51, limit="≥ 0.6", reason=f"AUC of {words} is below the floor"
    )
    return Verdict(
        model=model,
        verdict="pass" if passed else "stop",
        rule=("champion_comparison" if place else "first_model") if passed else "floors",
        reasons=(f"enter: all is well, {words}",) if passed else (str(stop.reason),),
        candidate=f"full-{day(place)}",
        champion=champion,
        day=str(day(place - 2)),
        candidate_days=DAYS,
        champion_days=None,
        rows=16_500,
        tasks=tuple(task(name, place, champion=place > 0) for name in ("enter", words)),
        segments=tuple(segment(name, at) for at, name in enumerate(names)) if place else (),
        checks=() if passed else (stop,),
        left_out={},
        parity=None,
        conf=None,
    )


def run(place: int, *models: str, stopped: tuple[str, ...] = (), words: str = "gift") -> RunFacts:
    """The full retrain of a day."""
    made_at = datetime.datetime.combine(day(place), datetime.time(4), datetime.UTC)
    return RunFacts(
        name=f"full-{day(place)}",
        made_at=made_at,
        verdicts={model: verdict(model, place, passed=model not in stopped, words=words) for model in models},
        digests={model: f"{model}-{place}" for model in models},
    )


def version(model: str, number: int, digest: str, *, champion: bool) -> Version:
    """As the registry describes it."""
    move = Move(who="ann", why="gate passed by rule floors on 2026-01-01", when="2026-01-03T04:05:06+00:00")
    return Version(
        name=model, version=str(number), state="champion" if champion else "retired", uri="file:///published",
        digest=digest, run_id=None, promotion=move, rollback=None,
    )  # fmt: skip


def evaluation(model: str, place: int, digest: str, moved: int = 0, words: str = "gift") -> Evaluation:
    """Of version 2; further from its gate day the more it `moved`."""
    low, high = 1000 - 40 * moved, 200 + 40 * moved
    scores = (0, low, high, *(0,) * (len(SCORE_EDGES) - 2))
    features = (0, high, low, *(0,) * (len(FEATURE_EDGES) - 2))
    return Evaluation(
        model=model, version="2", digest=digest, day=day(place), samples="s", rows=1200,
        tasks={"enter": TaskFigures(rows=1200, positives=300, auc=0.7, gauc=0.69, logloss=0.5, pcoc=1.0)},
        scores={"enter": scores}, features={f"user_watch_{words}": features, "room_viewers": scores[: len(features)]},
        oov={"user": Oov(values=1000, oov=31 + place), words: Oov(values=500, oov=0), "never": Oov(values=0, oov=0)},
    )  # fmt: skip


def result(model: str) -> TrainResult:
    """A training that ended."""
    return TrainResult(
        model=model, tasks=("enter",), interrupted=False, epochs=2, best_epoch=1, world_size=2, steps=800,
        dropped_per_epoch=12, rows_per_second=45_678.0, waiting_share=0.123, exchange_ms_per_step=1.5,
        bytes_sent_per_step=250_000.0,
    )  # fmt: skip


def bins() -> tuple[Bin, ...]:
    """Ten bins, well calibrated."""
    shares = [0.02 + 0.05 * place for place in range(10)]
    return tuple(Bin(rows=1600, predicted=s, observed=s * 1.05, low=s * 0.9, high=s * 1.2) for s in shares)


def lineage(words: str = "gift") -> Lineage:
    """Train set ← samples ← profiles ← raw; one partition was computed anew, one is gone."""
    now = datetime.datetime(2026, 1, 20, 4, 5, 6, tzinfo=datetime.UTC)

    def read(table: str, partition: str, digest_now: str | None, **inputs: str) -> Read:
        return Read(
            table=table, partition=partition, digest="d" * 32, digest_now=digest_now, rows=16_000, made_at=now,
            inputs={f"{name}/dt=2026-01-18": "d" for name in inputs.values()},
        )  # fmt: skip

    raw = "raw/impressions"
    return Lineage(
        {
            "trainsets": (read("trainsets", "name=full-2026-01-20", "d" * 32, a="samples"),),
            "samples": tuple(
                read("samples", f"dt={day(place)}", digest, a="profiles_user", b=raw)
                for place, digest in enumerate(("d" * 32, "e" * 32, None))
            ),
            "profiles_user": (read("profiles_user", f"dt={words}", "d" * 32, a=raw),),
            raw: (Read(table=raw, partition="dt=2026-01-18", digest="f" * 32),),
        }
    )


def summary() -> Summary:
    """Of a run that ended."""
    times = (("tiles", 12.5, 100_000), ("samples", 75.2, 16_000), ("train deepfm", 3700.0, 450_000), ("gate", 0.0, 0))
    return Summary(
        source="simulate", days=("2026-01-01",), world_size=2, models={}, gate={}, published=(),
        stages=tuple(StageTime(name=name, seconds=seconds, rows=rows) for name, seconds, rows in times),
        export_max_abs_diff=None, seconds_total=3790.0, notes=("PCOC is on a sampled scale.",),
    )  # fmt: skip


def facts(runs: int = 30, words: str = "gift") -> Facts:
    """A page of the newest of so many runs: deepfm passed, mmoe was stopped, esmm was never trained."""
    last = runs - 1
    own = run(last, "deepfm", "mmoe", stopped=("mmoe",), words=words)
    earlier = [run(place, "deepfm", *(("mmoe",) if place % 3 else ())) for place in range(last)]
    digest = f"deepfm-{last - 1}"
    gate_day = last - 3
    ours = version("deepfm", 3, f"deepfm-{last}", champion=True)
    return Facts(
        run=own,
        models=(
            ModelFacts(
                model="deepfm", result=result("deepfm"), calibration={"enter": bins(), words: bins()},
                versions=(ours, version("deepfm", 2, digest, champion=False)),
                evaluations=tuple(evaluation("deepfm", gate_day + moved, digest, moved, words) for moved in range(5)),
            ),
            ModelFacts(
                model="mmoe", result=result("mmoe"), calibration={"enter": bins()},
                versions=(version("mmoe", 2, digest, champion=True),),
            ),
            ModelFacts(model="esmm"),
        ),
        main_task="enter",
        earlier=tuple(earlier),
        summary=summary(),
        gate_days={digest: str(day(gate_day))},
        empty_share=0.0005,
        profiles={"profiles_user": 1234, "profiles_anchor": None},
        lineage=lineage(words),
    )  # fmt: skip
