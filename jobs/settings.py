"""All of conf, checked at once: what the data side reads, what the training side reads, and the doors' own."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import yaml
from pydantic import Field, field_validator

from features.errors import ConfError
from features.manifest import TrainSet
from features.paths import fault_of_name
from features.redaction import SecretUrl
from jobs.schedule_conf import SchedulerConf
from pipeline.audit.conf import AuditConf
from pipeline.config import PipelineConf, Section, TasksConf, conf_folder, parse, read_conf
from pipeline.sources.report import SourceFacts
from pipeline.trigger_facts import TriggerConf
from training.gate_conf import GateConf

if TYPE_CHECKING:
    from training.config import TrainConf


class TrainingSettings(Section):
    """Which models are trained, on how many ranks, and into which local folder (null: `runs` in the warehouse)."""

    models: tuple[str, ...] = Field(default=("deepfm", "esmm", "mmoe"), min_length=1)
    ranks: int = Field(default=2, ge=1)
    launcher: Literal["horovodrun", "spark", "alone"] = "horovodrun"
    hosts: str | None = None
    incremental_epochs: int = Field(default=1, ge=1)
    runs: str | None = None

    @field_validator("models")
    @classmethod
    def _models_are_names(cls, models: tuple[str, ...]) -> tuple[str, ...]:
        faults = [f"{name!r} {fault}" for name in models if (fault := fault_of_name(name)) is not None]
        if faults:
            raise ValueError(f"names of models become paths: {', '.join(faults)}")
        return models


class RegistrySettings(Section):
    """MLflow: a server's URL, or null for SQLite and a folder beside a local warehouse."""

    uri: SecretUrl | None = Field(default=None, repr=False)
    artifacts: str | None = None


class Settings(Section):
    """What one command runs with."""

    pipeline: PipelineConf = PipelineConf()
    training: TrainingSettings = TrainingSettings()
    registry: RegistrySettings = RegistrySettings()
    gate: GateConf | None = None
    audit: AuditConf = AuditConf()
    trigger: TriggerConf | None = None
    scheduler: SchedulerConf = SchedulerConf()

    @classmethod
    def load(cls, place: str, overrides: Iterable[str] = (), facts: SourceFacts | None = None) -> Self:
        """Read conf/base.yaml, conf/<place>.yaml and overrides; what conf leaves open follows the source.

        Raises:
            ConfError: every unknown key and every value out of range, at once.
        """
        values = read_conf(place, overrides)
        sections = ("training", "gate", "registry", "audit", "trigger", "scheduler")
        own = {name: values.pop(name) for name in sections if name in values}
        problems: list[str] = []

        def checked(model: type[Any], content: Any, where: str) -> Any:
            try:
                return parse(model, content, where)
            except ConfError as error:
                problems.append(str(error))
                return None

        if facts is not None:
            followed = ("conversions_imply_enter", "max_room_age_days")
            values["time"] = {name: getattr(facts.tasks, name) for name in followed} | values.get("time", {})
            values["tasks"] = {"main": facts.tasks.main, "only": list(facts.tasks.tasks)} | values.get("tasks", {})
        pipeline = checked(PipelineConf, values, "")
        training = checked(TrainingSettings, own.get("training", {}), "training")
        registry = checked(RegistrySettings, own.get("registry", {}), "registry")
        audit = checked(AuditConf, own.get("audit", {}), "audit")
        scheduler = checked(SchedulerConf, own.get("scheduler", {}), "scheduler")
        gate = own.get("gate")
        if gate is not None:
            main = pipeline.tasks.main if pipeline is not None else TasksConf().main
            gate = checked(GateConf, {"main_task": main} | gate, "gate")
        trigger = own.get("trigger")
        if trigger is not None:
            trigger = checked(TriggerConf, trigger, "trigger")
        if problems:
            raise ConfError("\n".join(problems))
        return cls(
            pipeline=pipeline, training=training, registry=registry, gate=gate, audit=audit, trigger=trigger,
            scheduler=scheduler,
        )  # fmt: skip

    def runs_folder(self, warehouse: str) -> Path:
        """Where trainings write: a local folder, which all ranks share when they run on several hosts.

        Raises:
            ConfError: when the warehouse is not local and conf names no folder.
        """
        if self.training.runs is not None:
            return Path(self.training.runs).absolute()
        if is_remote(warehouse):
            raise ConfError(
                f"warehouse {warehouse} is not local, and trainings write to a folder that all ranks see: name one in "
                "conf training.runs"
            )
        return Path(warehouse.removeprefix("file://")).absolute() / "runs"

    def tracking(self, warehouse: str) -> tuple[str, str | None]:
        """MLflow's URI and artefact folder.

        Raises:
            ConfError: when the warehouse is not local and no server is named.
        """
        if self.registry.uri is not None:
            return self.registry.uri, self.registry.artifacts
        if is_remote(warehouse):
            raise ConfError(f"warehouse {warehouse} is not local: name an MLflow server in conf registry.uri")
        folder = Path(warehouse.removeprefix("file://")).absolute() / "mlflow"
        folder.mkdir(parents=True, exist_ok=True)
        return f"sqlite:///{folder / 'mlflow.db'}", (folder / "artifacts").as_uri()


def is_remote(warehouse: str) -> bool:
    """Whether a URL names something else than a folder of this machine."""
    return "://" in warehouse and not warehouse.startswith("file://")


def model_values(name: str) -> dict[str, Any]:
    """conf/models/<name>.yaml.

    Raises:
        ConfError: when there is no such file; it names those there are.
    """
    path = conf_folder() / "models" / f"{name}.yaml"
    if fault_of_name(name) is not None or not path.exists():
        known = ", ".join(sorted(p.stem for p in path.parent.glob("*.yaml")))
        raise ConfError(f"conf training.models: there is no model {name!r}; conf/models has {known}")
    values: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return values


def train_conf(
    name: str,
    settings: Settings,
    warehouse: str,
    trainset: TrainSet,
    pair: tuple[str, str] | None = None,
    *,
    incremental: bool = False,
) -> TrainConf | str:
    """Settings of one training, fitted to the source's tasks.

    Returns:
        The settings, or the reason why this model cannot be trained on this train set.

    Raises:
        ConfError: on a bad value.
    """
    from training.config import TrainConf  # brings torch, which the data side does without

    values = model_values(name)
    model, main = values["model"], settings.pipeline.tasks.main
    if "task" in model:
        model["task"] = main
    if "parent" in model and pair is not None:
        model["parent"], model["child"] = pair
    wanted = [model[key] for key in ("task", "parent", "child") if key in model]
    for task in wanted:
        if task in trainset.left_out:
            return f"{name} needs the task {task}, which was left out: {trainset.left_out[task]}"
    if "early_stopping" in values:
        values["early_stopping"]["task"] = model.get("parent", main)
    if incremental:
        values["epochs"] = settings.training.incremental_epochs
    uri, artifacts = settings.tracking(warehouse)
    values["tracking"] = {"uri": uri, "artifacts": artifacts}
    return TrainConf.of(values)
