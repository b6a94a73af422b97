"""Lets the JVM of spark-submit end when its script has."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

BARRIER_TASKS = "org.apache.spark.BarrierTaskContext"


def end_barrier_timer(session: SparkSession) -> None:
    """Cancel the timer of barrier tasks, as XGBoost's are. To be called when no task runs any more.

    Spark 3's timer is no daemon thread, and nothing in Spark ends it (SPARK-46895): where driver and tasks share a JVM,
    spark-submit waited for it for ever. Without spark-submit the JVM ends with Python.
    """
    if not session.version.startswith("3."):
        return
    jvm = session.sparkContext._jvm
    assert jvm is not None
    companion = jvm.java.lang.Class.forName(f"{BARRIER_TASKS}$")
    tasks = companion.getField("MODULE$").get(None)
    getattr(tasks, f"{BARRIER_TASKS.replace('.', '$')}$$timer")().cancel()
