"""A Spark standalone cluster on loopback, from the jars that pyspark brings: a master and workers of one core each."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import pyspark

from pipeline.java_runtime import find_java_home
from tests.e2e.short_runs import QUICK_JVM, ROOT

SPARK_HOME = Path(pyspark.__file__).parent
LOOPBACK = "127.0.0.1"

STOP_TIMEOUT_S = 30
SHOWN_OUTPUT = 6000


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """A running cluster."""

    url: str
    environment: Mapping[str, str]

    def submit(
        self, script: str, arguments: Sequence[str], conf: Mapping[str, str] | None = None, py_files: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        """spark-submit of a script of this checkout, to its end; stdout and stderr as text."""
        properties = {
            "spark.driver.host": LOOPBACK,
            "spark.driver.bindAddress": LOOPBACK,
            "spark.driver.memory": "900m",
            "spark.executor.memory": "900m",
            "spark.executor.cores": "1",
            "spark.sql.shuffle.partitions": "3",
            "spark.driver.extraJavaOptions": QUICK_JVM,
            "spark.executor.extraJavaOptions": QUICK_JVM,
            "spark.ui.enabled": "false",
            "spark.ui.showConsoleProgress": "false",
            **(conf or {}),
        }
        command = [str(SPARK_HOME / "bin" / "spark-submit"), "--master", self.url]
        command += ["--properties-file", str(ROOT / "conf" / "spark" / "standalone.conf")]
        command += ["--py-files", str(py_files)] if py_files else []
        for key, value in properties.items():
            command += ["--conf", f"{key}={value}"]
        command += [str(ROOT / script), *arguments]
        return subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False)


def shown(done: subprocess.CompletedProcess[str]) -> str:
    """The end of what a submitted script said, for a failing assertion."""
    return f"exit code {done.returncode}\n{done.stdout[-SHOWN_OUTPUT:]}\n{done.stderr[-SHOWN_OUTPUT:]}"


@contextmanager
def standalone_cluster(scratch: Path, *, workers: int, worker_memory: str = "1g") -> Iterator[Cluster]:
    """Start master and workers, wait until the master knows every worker, and stop them at the end."""
    java_home = find_java_home()
    environment = os.environ | {
        "JAVA_HOME": str(java_home),
        "SPARK_HOME": str(SPARK_HOME),
        # The scripts in sbin would find it out; without it workers cannot put together the command of an executor.
        "SPARK_SCALA_VERSION": scala_version(),
        "SPARK_LOCAL_IP": LOOPBACK,
        "SPARK_LOCAL_DIRS": str(scratch / "local"),
        "PYSPARK_PYTHON": sys.executable,
        "OMP_NUM_THREADS": "1",
    }
    # Left by the session of the test run, which is another application.
    for name in ("PYSPARK_GATEWAY_PORT", "PYSPARK_GATEWAY_SECRET"):
        environment.pop(name, None)
    java = [str(java_home / "bin" / "java"), "-Xmx256m", *QUICK_JVM.split(), "-cp", f"{SPARK_HOME}/jars/*"]
    with ExitStack() as running:
        master = running.enter_context(
            _daemon([*java, "org.apache.spark.deploy.master.Master", "--host", LOOPBACK, *_any_port()], environment)
        )
        url = master.wait_for(r"Starting Spark master at (spark://\S+)")
        for number in range(workers):
            own = ["--cores", "1", "--memory", worker_memory, "--work-dir", str(scratch / f"worker-{number}"), url]
            worker = ["org.apache.spark.deploy.worker.Worker", "--host", LOOPBACK, *_any_port(), *own]
            running.enter_context(_daemon([*java, *worker], environment))
        for _ in range(workers):
            master.wait_for(r"Registering worker (\S+)")
        yield Cluster(url=url, environment=environment)


def scala_version() -> str:
    """Of the jars that pyspark brings."""
    (core,) = (SPARK_HOME / "jars").glob("spark-core_*.jar")
    return core.name.removeprefix("spark-core_").split("-")[0]


def _any_port() -> list[str]:
    return ["--port", "0", "--webui-port", "0"]


class _Log:
    """The log of a daemon, read as it comes."""

    def __init__(self, lines: IO[str]) -> None:
        self._lines = lines
        self._seen: list[str] = []

    def wait_for(self, pattern: str) -> str:
        """The first group of the next line that matches; blocks until it comes.

        Raises:
            AssertionError: the daemon ended before that; with all that it said.
        """
        for line in self._lines:
            self._seen.append(line)
            found = re.search(pattern, line)
            if found:
                return found.group(1)
        raise AssertionError(f"no {pattern!r} in:\n{''.join(self._seen)}")

    def drain(self) -> None:
        """Read on to the end, so that the daemon never blocks on a full pipe."""
        for _ in self._lines:
            pass


@contextmanager
def _daemon(command: Sequence[str], environment: Mapping[str, str]) -> Iterator[_Log]:
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    log = _Log(process.stderr)
    try:
        yield log
    finally:
        process.terminate()
        reader = threading.Thread(target=log.drain)
        reader.start()
        process.wait(timeout=STOP_TIMEOUT_S)
        reader.join()
        process.stderr.close()
