"""One demo and one cluster for all tests of whole runs: each takes longer than the tests on it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import make_dist
from tests.e2e.demo import SET, Demo
from tests.e2e.short_runs import limelight, short_conf
from tests.e2e.standalone_cluster import Cluster, standalone_cluster

WORKERS = 2


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    out = tmp_path_factory.mktemp("demo")
    conf = short_conf(out / "conf")
    limelight(conf, ["demo", "--impressions", "36000", "--out", str(out), *SET])
    return Demo(out=out, conf=conf)


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with standalone_cluster(tmp_path_factory.mktemp("cluster"), workers=WORKERS) as running:
        yield running


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("dist") / "limelight.zip"
    make_dist.pack(make_dist.ROOT, path)
    return path
