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
        digest: of the rows that `run` wrote; not timed.
        prepare: brings back what `run` needs; not timed.
        peers: digests must be equal among the arms that share this name.
    """

    name: str
    run: Callable[[], None]
    digest: Callable[[], str]
    prepare: Callable[[], None] = lambda: None
    peers: str = ""


@dataclass(kw_only=True)
class Timed:
    """What one arm took."""

    seconds: list[float] = field(default_factory=list)
    loads: list[float] = field(default_factory=list)
    bytes_read: list[int] = field(default_factory=list)
    digest: str = ""

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    def summary(self) -> dict[str, object]:
        """For the JSON: median, range, every repeat, the load of the machine (1 minute) after each."""
        return {
            "median_s": round(self.median, 3),
            "range_s": [round(min(self.seconds), 3), round(max(self.seconds), 3)],
            "all_s": [round(value, 3) for value in self.seconds],
            "load": [round(value, 2) for value in self.loads],
            "bytes_read": statistics.median(self.bytes_read) if self.bytes_read else None,
            "digest": self.digest,
        }


def interleaved(
    arms: Sequence[Arm], *, repeats: int, spark: SparkSession, done: Callable[[str], None]
) -> dict[str, Timed]:
    """Every arm once to warm up, then `repeats` rounds of all arms, each round beginning with another one.

    Raises:
        ValueError: when arms that are peers, or two repeats of one arm, wrote different rows.
    """
    timed = {arm.name: Timed() for arm in arms}
    for number in range(repeats + 1):
        turn = number % len(arms)
        for arm in (*arms[turn:], *arms[:turn]):
            _once(arm, timed[arm.name], spark, keep=number > 0)
            done(arm.name)
    _check_digests(arms, timed)
    return timed


def _once(arm: Arm, timed: Timed, spark: SparkSession, *, keep: bool) -> None:
    arm.prepare()
    read = StagesRead(spark)
    started = time.perf_counter()
    arm.run()
    seconds = time.perf_counter() - started
    read_bytes = read.bytes()
    digest = arm.digest()
    if timed.digest and digest != timed.digest:
        raise ValueError(f"{arm.name} wrote other rows than the time before: {digest}, not {timed.digest}")
    timed.digest = digest
    if keep:
        timed.seconds.append(seconds)
        timed.loads.append(os.getloadavg()[0])
        timed.bytes_read.append(read_bytes)


def _check_digests(arms: Sequence[Arm], timed: Mapping[str, Timed]) -> None:
    for group in {arm.peers for arm in arms if arm.peers}:
        digests = {arm.name: timed[arm.name].digest for arm in arms if arm.peers == group}
        if len(set(digests.values())) > 1:
            raise ValueError(f"{group}: arms wrote different rows: {digests}")


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
