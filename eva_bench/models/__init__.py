"""Loading models as bundles: one module per kind, chosen by `model.kind`."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING

from eva_bench.settings.schema import DataSettings, ModelSettings

if TYPE_CHECKING:  # the generated text below this package is read by commands that do without torch
    from eva_bench.models.bundle import ModelBundle


def load(model: ModelSettings, data: DataSettings, device, outputs: int | None = None) -> ModelBundle:
    """The model with its weights, from `eva_bench.models.<kind>`; never touches the network.

    Args:
        outputs: of a trained head on top (classes, or 1 for regression); None for models without one.
    """
    return _module(model.kind).load(model, data, device, outputs)


def skeleton(model: ModelSettings, data: DataSettings, outputs: int | None = None) -> ModelBundle:
    """The model without weights, to check targets and ranks cheaply."""
    return _module(model.kind).skeleton(model, data, outputs)


def save(bundle: ModelBundle, folder: Path) -> None:
    """The whole trained model, as `model.path` takes it."""
    _module(bundle.kind).save(bundle, folder)


def _module(kind: str):
    return importlib.import_module(f"eva_bench.models.{kind}")
