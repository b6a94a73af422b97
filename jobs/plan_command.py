"""`limelight plan --json`: the schedule of a warehouse, for dags/limelight_dags.py to read."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from features.storage import refuse_secrets
from jobs.evaluate import settings_of
from jobs.schedule import Place, Schedule, build_schedule
from jobs.settings import is_remote
from jobs.spark_session import log_option
from pipeline.config import CONF_FOLDER_VARIABLE, conf_folder
from pipeline.java_runtime import find_java_home
from pipeline.tables import Warehouse

ROOT = Path(__file__).resolve().parent.parent


def schedule_of(url: str, place: str, overrides: Sequence[str]) -> Schedule:
    """The schedule with the executables of this environment, its Java, and the conf in force.

    Raises:
        ConfError: on any bad value, or a secret in the URL.
        ResourceError: when there is no Java that Spark runs on.
    """
    refuse_secrets(url)
    settings, _ = settings_of(Warehouse(url), place, overrides)
    executables = Path(sys.executable).parent
    where = Place(
        warehouse=url if is_remote(url) else str(Path(url.removeprefix("file://")).absolute()),
        python=sys.executable,
        spark_submit=str(executables / "spark-submit"),
        root=str(ROOT),
        properties=str(conf_folder().absolute() / "spark" / f"{place}.conf"),
        place=place,
        overrides=tuple(overrides),
        environment={
            "JAVA_HOME": str(find_java_home()),
            "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
            "PYSPARK_PYTHON": sys.executable,
            "SPARK_SUBMIT_OPTS": log_option(),
            CONF_FOLDER_VARIABLE: str(conf_folder().absolute()),
        },
    )
    return build_schedule(where, settings.scheduler, settings.training.models, settings.pipeline.time.zone)
