"""Arms measured side by side: interleaved, repeated, with what the machine was doing meanwhile."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
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


@dataclass(kw_only=True)
class Timed:
    """What one arm took."""

    seconds: list[float] = field(default_factory=list)
    loads: list[float] = field(default_factory=list)
    bytes_read: list[int] = field(default_factory=list)
    digests: dict[str, str] = field(default_factory=dict)

    @property
    def median(self) -> float:
        """Of the seconds."""
        return statistics.median(self.seconds)

    @property
    def bytes_median(self) -> float:
        """Of the bytes that Spark read."""
        return statistics.median(self.bytes_read)

    def summary(self) -> dict[str, object]:
        """For the JSON: median, range, every repeat, the load of the machine (1 minute) after each."""
        return {
            "median_s": round(self.median, 3),
            "range_s": [round(min(self.seconds), 3), round(max(self.seconds), 3)],
            "all_s": [round(value, 3) for value in self.seconds],
            "load": [round(value, 2) for value in self.loads],
            "bytes_read": self.bytes_median,
            "digests": self.digests,
        }


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
    read = StagesRead(spark)
    started = time.perf_counter()
    arm.run()
    seconds = time.perf_counter() - started
    read_bytes = read.bytes()
    digests = arm.digests()
    if timed.digests and digests != timed.digests:
        raise ValueError(f"{arm.name} wrote other rows than the time before: {digests}, not {timed.digests}")
    timed.digests = digests
    if keep:
        timed.seconds.append(seconds)
        timed.loads.append(os.getloadavg()[0])
        timed.bytes_read.append(read_bytes)
    return seconds


def check_digests(timed: Mapping[str, Timed]) -> None:
    """Raises ValueError when arms wrote different rows of a family."""
    for family in {family for arm in timed.values() for family in arm.digests}:
        digests = {name: arm.digests[family] for name, arm in timed.items() if family in arm.digests}
        if len(set(digests.values())) > 1:
            raise ValueError(f"{family}: arms wrote different rows: {digests}")


class StagesRead:
    """What the stages that begin after this was made read from storage, by Spark's inputMetrics."""

    def __init__(self, spark: SparkSession) -> None:
        self._context = spark.sparkContext
        self._first = max((stage.stageId() for stage in self._stages()), default=-1) + 1

    def bytes(self) -> int:
        """Over all attempts of those stages."""
        return sum(int(stage.inputBytes()) for stage in self._stages() if stage.stageId() >= self._first)

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
