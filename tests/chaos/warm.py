"""Imported by the process that trials are forked from: what every one of them would import and set up anew."""

from __future__ import annotations

import os

import alembic.command
import mlflow.artifacts
import mlflow.store.artifact.local_artifact_repo
import mlflow.store.model_registry.sqlalchemy_store
import mlflow.store.tracking.sqlalchemy_store
import mlflow.tracking
import onnxruntime
import torch

os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"  # it is shown between the trials' lines
# Exporting looks through all operators there are, once per process.
torch.onnx.export(torch.nn.Identity().eval(), (torch.zeros(1),), dynamo=True, verbose=False)

__all__ = ["alembic", "mlflow", "onnxruntime"]
