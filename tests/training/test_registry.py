"""The registry on a real MLflow (SQLite, a folder): the alias moves last, and goes back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from features.errors import DataError, GateStoppedError
from tests.training.test_gate import DAYS, PARITY
from training.published import Output, seal, verify
from training.registry import Registry
from training.verdict import Verdict

# MLflow 3.17 on SQLAlchemy 2.1; ours is the pairing, theirs the call
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")


def verdict(model: str, *, passed: bool = True) -> Verdict:
    return Verdict(
        model=model,
        verdict="pass" if passed else "stop",
        rule="first_model" if passed else "floors",
        reasons=("because",),
        candidate="run",
        champion=None,
        day="2026-01-10",
        candidate_days=DAYS,
        champion_days=None,
        rows=100,
        tasks=(),
        left_out={},
        parity=PARITY,
        conf=None,
    )


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    """One database for the file: creating it is what costs. Every test has models of its own."""
    root = tmp_path_factory.mktemp("mlflow")
    return Registry.open(f"sqlite:///{root}/mlflow.db", (root / "artifacts").as_uri())


@pytest.fixture
def folder(tmp_path: Path) -> Callable[[str], Path]:
    def make(content: str) -> Path:
        path = tmp_path / f"model {content}"
        (path / "vocabularies").mkdir(parents=True)
        (path / "model.onnx").write_text(content)
        (path / "vocabularies" / "user.parquet").write_text("keys")
        seal(path, "deepfm", (Output(name="enter", all_of=("enter",)),))
        return path

    return make


Make = Callable[[str], Path]


def test_a_published_folder_comes_back_as_it_was(registry: Registry, folder: Make) -> None:
    assert registry.champion("whole") is None
    assert registry.history("whole") == []
    version = registry.publish("whole", folder("a"), verdict("whole"), metrics={"enter_auc": 0.71})
    found = registry.champion("whole")
    assert found is not None
    assert found[0] == version == "1"
    assert (found[1] / "model.onnx").read_text() == "a"
    assert verify(found[1]).outputs[0].name == "enter"
    (only,) = registry.history("whole")
    assert only.state == "champion"
    assert only.promotion is not None
    assert "first_model" in only.promotion.why


def test_a_folder_that_is_published_again_leaves_the_files_of_the_first_version_alone(
    registry: Registry, folder: Make
) -> None:
    """Copying is not done in one step: one that is cut off must not spoil the champion."""
    given = folder("a")
    registry.publish("again", given, verdict("again"))
    first = registry.champion("again")
    assert first is not None
    registry.publish("again", given, verdict("again"), run_id=registry.history("again")[0].run_id)
    second = registry.champion("again")
    assert second is not None
    assert (second[0], second[1] != first[1]) == ("2", True)
    assert verify(second[1]).digest() == verify(first[1]).digest()
    # What no version names was left by a publication that was cut off: it is written over.
    third = second[1].with_name(f"{first[1].name}-2")
    third.mkdir()
    (third / "model.onnx").write_text("half")
    registry.publish("again", given, verdict("again"), run_id=registry.history("again")[0].run_id)
    found = registry.champion("again")
    assert found is not None
    assert (found[0], found[1]) == ("3", third)


def test_rollback_goes_back_one_by_one_and_says_who_and_why(registry: Registry, folder: Make) -> None:
    for content in ("a", "b", "c"):
        registry.publish("steps", folder(content), verdict("steps"))
    assert registry.rollback("steps", why="complaints", who="ann") == "2"
    assert registry.rollback("steps", why="more complaints", who="bob") == "1"
    found = registry.champion("steps")
    assert found is not None
    assert (found[1] / "model.onnx").read_text() == "a"
    states = {v.version: v.state for v in registry.history("steps")}
    assert states == {"3": "rolled back", "2": "rolled back", "1": "champion"}
    newest = registry.history("steps")[0].rollback
    assert newest is not None
    assert (newest.who, newest.why, newest.to) == ("ann", "complaints", "2")
    with pytest.raises(DataError, match="version 1 is the first"):
        registry.rollback("steps", why="again")


def test_a_publication_after_a_rollback_takes_over_from_what_was_in_use(registry: Registry, folder: Make) -> None:
    for content in ("a", "b"):
        registry.publish("after", folder(content), verdict("after"))
    registry.rollback("after", why="bad")
    registry.publish("after", folder("c"), verdict("after"))
    states = {v.version: v.state for v in registry.history("after")}
    assert states == {"3": "champion", "2": "rolled back", "1": "retired"}
    assert registry.rollback("after", why="worse") == "1"


def test_a_withdrawn_champion_has_no_successor_until_the_next_publication(registry: Registry, folder: Make) -> None:
    for content in ("a", "b"):
        registry.publish("gone", folder(content), verdict("gone"))
    assert registry.withdraw("gone", why="its features are no more", who="ann") == "2"
    assert registry.champion("gone") is None
    with pytest.raises(DataError, match="gone has no champion to withdraw"):
        registry.withdraw("gone", why="again")
    registry.publish("gone", folder("c"), verdict("gone"))
    assert {v.version: v.state for v in registry.history("gone")}["2"] == "withdrawn"
    with pytest.raises(DataError, match="version 3 is the first"):
        registry.rollback("gone", why="there is nothing before it")


def test_rollback_of_an_unknown_model_says_so(registry: Registry) -> None:
    with pytest.raises(DataError, match="has no champion"):
        registry.rollback("unknown", why="habit")


@pytest.mark.parametrize("step", ["log_artifacts", "log_text", "create_model_version", "set_registered_model_alias"])
def test_a_crash_at_any_step_leaves_the_old_champion(
    registry: Registry, folder: Make, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    name = f"crash_{step}"
    registry.publish(name, folder("old"), verdict(name))

    def crash(*_: object, **__: object) -> None:
        raise KeyboardInterrupt(step)

    with monkeypatch.context() as patch:
        patch.setattr(registry._client, step, crash)
        with pytest.raises(KeyboardInterrupt):
            registry.publish(name, folder("new"), verdict(name))
    found = registry.champion(name)
    assert found is not None
    assert (found[1] / "model.onnx").read_text() == "old"
    latest = registry.publish(name, folder("newer"), verdict(name))
    history = {v.version: v for v in registry.history(name)}
    assert history[latest].state == "champion"
    assert history["1"].state == "retired"
    abandoned = set(history) - {latest, "1"}
    assert {history[v].state for v in abandoned} <= {"never promoted"}
    assert bool(abandoned) == (step == "set_registered_model_alias")
    assert registry.rollback(name, why="check") == "1"


def test_a_crash_in_a_rollback_leaves_the_champion(
    registry: Registry, folder: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    for content in ("a", "b"):
        registry.publish("half", folder(content), verdict("half"))

    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(registry._client, "set_registered_model_alias", crash)
        with pytest.raises(KeyboardInterrupt):
            registry.rollback("half", why="bad")
    assert registry.history("half")[0].state == "champion"
    assert registry.rollback("half", why="bad") == "1"


def test_nothing_is_published_that_the_gate_stopped(registry: Registry, folder: Make) -> None:
    with pytest.raises(GateStoppedError, match="floors"):
        registry.publish("stopped", folder("a"), verdict("stopped", passed=False))
    with pytest.raises(DataError, match="about other"):
        registry.publish("stopped", folder("b"), verdict("other"))
    incomplete = folder("c")
    (incomplete / "model.onnx").unlink()
    with pytest.raises(DataError, match="missing"):
        registry.publish("stopped", incomplete, verdict("stopped"))
    assert registry.history("stopped") == []


def test_a_champion_whose_files_changed_is_not_used(registry: Registry, folder: Make) -> None:
    registry.publish("spoiled", folder("a"), verdict("spoiled"))
    found = registry.champion("spoiled")
    assert found is not None
    (found[1] / "model.onnx").write_text("spoiled")
    with pytest.raises(DataError, match="changed"):
        registry.champion("spoiled")


def test_the_run_that_trained_it_keeps_the_artefact(registry: Registry, folder: Make) -> None:
    client = registry._client
    experiment = client.create_experiment("training", artifact_location=registry._artifacts)
    run = client.create_run(experiment).info.run_id
    registry.publish("traced", folder("a"), verdict("traced"), run_id=run)
    (only,) = registry.history("traced")
    assert only.run_id == run
    assert run in only.uri
