"""Arms measured side by side: interleaved, repeated, with what the machine was doing meanwhile."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


@dataclass(frozen=True, kw_only=True)
class Arm:
    """Something to measure.

    Attributes:
        run: does it once.
        digests: family → digest of its rows that `run` wrote; not timed.
        prepare: brings back what `run` needs; not timed.
    """

    name: str
    run: Callable[[], None]
    digests: Callable[[], dict[str, str]]
    prepare: Callable[[], None] = lambda: None


@dataclass(frozen=True, kw_only=True)
class Work:
    """What Spark did in one run.

    Attributes:
        cpu_s: processor seconds of all tasks.
        input_bytes: Spark's inputMetrics, which also count what is read again of frames that are kept.
        file_bytes: what came from file systems, by Hadoop's counters.
        shuffle_bytes, output_bytes: written.
    """

    cpu_s: float
    input_bytes: float
    file_bytes: float
    shuffle_bytes: float
    output_bytes: float


@dataclass(kw_only=True)
class Timed:
    """What one arm took.

    Attributes:
        every_days: of what is not done every day: how often.
    """

    seconds: list[float] = field(default_factory=list)
    loads: list[float] = field(default_factory=list)
    works: list[Work] = field(default_factory=list)
    digests: dict[str, str] = field(default_factory=dict)
    every_days: float = 0.0

    @property
    def median(self) -> float:
        """Of the seconds."""
        return statistics.median(self.seconds)

    @property
    def work(self) -> Work:
        """The median of each figure."""
        return Work(**{name: statistics.median(getattr(work, name) for work in self.works) for name in _FIGURES})

    def summary(self) -> dict[str, object]:
        """For the JSON: median, range, every repeat, the load of the machine (1 minute) after each, the work."""
        return {
            "median_s": round(self.median, 3),
            "range_s": [round(min(self.seconds), 3), round(max(self.seconds), 3)],
            "all_s": [round(value, 3) for value in self.seconds],
            "load": [round(value, 2) for value in self.loads],
            "work": vars(self.work),
            "digests": self.digests,
            **({"every_days": round(self.every_days, 2)} if self.every_days else {}),
        }


_FIGURES = tuple(figure.name for figure in fields(Work))


def interleaved(
    arms: Sequence[Arm],
    *,
    repeats: int,
    spark: SparkSession,
    done: Callable[[str, float], None],
    compared: bool = False,
) -> dict[str, Timed]:
    """Every arm once to warm up, then `repeats` rounds of all arms, each round beginning with another one.

    Args:
        compared: all arms read the same rows.

    Raises:
        ValueError: when two repeats of one arm, or (compared) two arms of one family, wrote different rows.
    """
    timed = {arm.name: Timed() for arm in arms}
    for number in range(repeats + 1):
        turn = number % len(arms)
        for arm in (*arms[turn:], *arms[:turn]):
            done(arm.name, _once(arm, timed[arm.name], spark, keep=number > 0))
    if compared:
        check_digests(timed)
    return timed


def _once(arm: Arm, timed: Timed, spark: SparkSession, *, keep: bool) -> float:
    """Seconds of one run; kept in `timed`, but for the first."""
    arm.prepare()
    working = Working(spark)
    started = time.perf_counter()
    arm.run()
    seconds = time.perf_counter() - started
    work = working.done()
    digests = arm.digests()
    if timed.digests and digests != timed.digests:
        raise ValueError(f"{arm.name} wrote other rows than the time before: {digests}, not {timed.digests}")
    timed.digests = digests
    if keep:
        timed.seconds.append(seconds)
        timed.loads.append(os.getloadavg()[0])
        timed.works.append(work)
    return seconds


def check_digests(timed: Mapping[str, Timed]) -> None:
    """Raises ValueError when arms wrote different rows of a family."""
    for family in {family for arm in timed.values() for family in arm.digests}:
        digests = {name: arm.digests[family] for name, arm in timed.items() if family in arm.digests}
        if len(set(digests.values())) > 1:
            raise ValueError(f"{family}: arms wrote different rows: {digests}")


class Working:
    """Adds up the stages that begin after this was made, over all their attempts, and what is read meanwhile.

    Executors are threads of this process, so that its file systems' counters know what they read.
    """

    def __init__(self, spark: SparkSession) -> None:
        self._context = spark.sparkContext
        self._first = max((stage.stageId() for stage in self._stages()), default=-1) + 1
        self._read_before = self._file_bytes()

    def done(self) -> Work:
        """What was done since."""
        stages = [stage for stage in self._stages() if stage.stageId() >= self._first]
        return Work(
            cpu_s=sum(int(stage.executorCpuTime()) for stage in stages) / 1e9,
            input_bytes=sum(int(stage.inputBytes()) for stage in stages),
            file_bytes=self._file_bytes() - self._read_before,
            shuffle_bytes=sum(int(stage.shuffleWriteBytes()) for stage in stages),
            output_bytes=sum(int(stage.outputBytes()) for stage in stages),
        )

    def _file_bytes(self) -> int:
        jvm = self._context._jvm
        assert jvm is not None
        return sum(int(entry.getBytesRead()) for entry in jvm.org.apache.hadoop.fs.FileSystem.getAllStatistics())

    def _stages(self) -> list[Any]:
        """What the status store knows, once all events have come in; it keeps the last thousand stages."""
        jvm, gateway = self._context._jvm, self._context._gateway
        assert jvm is not None
        assert gateway is not None
        scala_context = self._context._jsc.sc()
        scala_context.listenerBus().waitUntilEmpty()
        quantiles = gateway.new_array(jvm.double, 0)
        stages = scala_context.statusStore().stageList(None, False, False, quantiles, jvm.java.util.ArrayList())
        return [stages.apply(index) for index in range(stages.size())]
