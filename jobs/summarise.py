"""Puts together summary.json and report.html from what a retrain left behind."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jobs.ceiling import baseline_feature, heat_of, probabilities_of_truth, references
from jobs.console import Steps
from jobs.release import read_gate_samples
from jobs.report import PREDICTIONS_FILE, REPORT_FILE, read_evidence, write_report
from jobs.retrain import Retrained
from jobs.summary import GateSummary, PublishedVersion, Summary, TaskSummary
from training.published import verify
from training.registry import Registry
from training.result import read_result
from training.storage import Folder


def summarise(
    retrained: Retrained,
    steps: Steps,
    registry: Registry,
    *,
    source: str,
    days: Sequence[str],
    truth: str | None,
    notes: Sequence[str] = (),
) -> Summary:
    """The run in numbers. `truth` is the simulator's folder, None for real data."""
    gate_day = retrained.trainset.splits["gate"].days[0]
    heat = heat_of(read_gate_samples(retrained.trainset), baseline_feature(source))
    true_probabilities = probabilities_of_truth(truth, gate_day) if truth else None
    models, published, differences, worlds = {}, [], [], []
    for name, found in retrained.releases.items():
        folder = retrained.run_folders[name]
        outputs = {output.name: output.all_of for output in verify(found.folder).outputs}
        reference = references(folder / PREDICTIONS_FILE, outputs, heat, true_probabilities)
        models[name] = {
            task.task: TaskSummary(
                auc=task.candidate.auc,
                gauc=task.candidate.gauc,
                logloss=task.candidate.logloss,
                pcoc=task.candidate.pcoc,
                auc_ceiling=reference[task.task].ceiling,
                heat_auc=reference[task.task].heat,
            )
            for task in found.verdict.tasks
        }
        result = read_result(Folder(str(folder)))
        worlds.append(result.world_size if result else 1)
        if found.verdict.parity is not None:
            differences.append(found.verdict.parity.probability_difference)
        if found.version is not None:
            version = next(v for v in registry.history(name) if v.version == found.version)
            published.append(PublishedVersion(name=name, version=found.version, uri=version.uri))
    skipped = [f"{name} was not trained: {why}" for name, why in retrained.skipped.items()]
    return Summary(
        source=source,
        days=tuple(days),
        world_size=max(worlds, default=1),
        stages=tuple(steps.done),
        models=models,
        gate={
            name: GateSummary(
                verdict=found.verdict.verdict, rule=found.verdict.rule, reasons=tuple(found.verdict.reasons)
            )
            for name, found in retrained.releases.items()
        },
        published=tuple(published),
        export_max_abs_diff=max(differences, default=None),
        seconds_total=steps.seconds,
        left_out=dict(retrained.trainset.left_out),
        ids_added=dict(retrained.ids_added),
        ids_evicted=retrained.trainset.evicted(),
        rows_replayed=dict(retrained.trainset.replayed),
        notes=(*notes, *skipped),
    )


def write_summary_and_report(summary: Summary, retrained: Retrained, main_task: str, out: Path) -> tuple[Path, Path]:
    """summary.json and report.html below `out`."""
    heat = heat_of(read_gate_samples(retrained.trainset), baseline_feature(summary.source))
    evidence = {name: read_evidence(folder, main_task, heat) for name, folder in retrained.run_folders.items()}
    return summary.write(out), write_report(summary, evidence, out / REPORT_FILE)
