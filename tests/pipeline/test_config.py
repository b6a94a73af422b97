"""Conf: overlays, overrides, and messages that name key, value and remedy."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest

from features.errors import ConfError, ExitCode
from pipeline.config import PipelineConf, day_range, full_retrain_days, parse, read_conf

DAY = datetime.date(2025, 3, 19)


def pipeline_values(*overrides: str) -> dict[str, object]:
    values = read_conf("local", overrides)
    return {name: values[name] for name in PipelineConf.model_fields if name in values}


def test_the_shipped_conf_is_valid_and_overrides_win() -> None:
    conf = parse(PipelineConf, pipeline_values("days.train=14", "time.zone=UTC"), "")
    assert (conf.days.train, conf.days.fit, conf.time.zone) == (14, 4, "UTC")


def test_every_bad_value_is_named_at_once() -> None:
    with pytest.raises(ConfError) as caught:
        parse(PipelineConf, pipeline_values("days.trian=14", "leaves.depth=99", "time.zone=Moon/Base"), "")
    text = str(caught.value)
    assert "conf days.trian is unknown; did you mean train?" in text
    assert "conf leaves.depth = 99" in text
    assert "'Moon/Base' is not a time zone" in text
    assert caught.value.exit_code is ExitCode.BAD_CONF


def test_an_unknown_place_names_the_known_ones() -> None:
    with pytest.raises(ConfError, match="base, cluster, local"):
        read_conf("moon")


def test_an_override_without_value_is_explained() -> None:
    with pytest.raises(ConfError, match="must look like key=value"):
        read_conf("local", ["days.train"])


def test_another_conf_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "base.yaml").write_text("days: {train: 3}\n")
    (tmp_path / "local.yaml").write_text("days: {fit: 2}\n")
    monkeypatch.setenv("LIMELIGHT_CONF", str(tmp_path))
    assert read_conf("local") == {"days": {"train": 3, "fit": 2}}


@pytest.mark.parametrize("label_delay", [0, 1, 3])
def test_days_of_a_full_retrain_never_touch(label_delay: int) -> None:
    conf = parse(PipelineConf, pipeline_values(f"time.label_delay_days={label_delay}"), "")
    days = full_retrain_days(DAY, conf)
    assert days.gate == DAY - datetime.timedelta(days=1 + label_delay)
    assert (len(days.fit), len(days.train), len(days.valid)) == (4, 8, 1)
    assert list(days.all) == day_range(days.fit[0], days.gate)


def test_the_fingerprint_follows_what_decides_a_train_set_and_nothing_else() -> None:
    one = parse(PipelineConf, pipeline_values(), "").trainset_fingerprint()
    for deciding in ("export.seed=1", "days.train=3", "leaves.trees=3", "time.label_delay_days=2", "tasks.main=gift"):
        assert parse(PipelineConf, pipeline_values(deciding), "").trainset_fingerprint() != one
    for other in ("retention.state_days=20", "checks.one_in=2", "windows.max_deltas=3", "serving.buckets=2"):
        assert parse(PipelineConf, pipeline_values(other), "").trainset_fingerprint() == one
    for other in (
        "days.evict_after_days=5",
        "days.replay_share=1.5",
        "days.replay_days=3",
    ):  # of incremental ones alone
        assert parse(PipelineConf, pipeline_values(other), "").trainset_fingerprint() == one
