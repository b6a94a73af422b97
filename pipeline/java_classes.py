"""Where pyspark's gateway finds the classes that it asks for all the time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from py4j.java_gateway import java_import

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

ASKED_OFTEN = (
    "org.apache.spark.sql.functions",
    "org.apache.spark.api.python.PythonUtils",
    "org.apache.spark.sql.api.python.PythonSQLUtils",
)
"""Of `F.col` and its kin, and of every list of columns."""


def name_classes_in_full(session: SparkSession) -> None:
    """Import classes by their full names, once per session.

    pyspark imports packages whole, so py4j looks for `functions` in seven of them, through every jar, at each call
    (a third of the cost of `F.col` is left without that), and the plans of one carried day take thousands of calls.
    """
    for name in ASKED_OFTEN:
        java_import(session.sparkContext._jvm, name)
