"""Loading models as bundles: one module per kind, chosen by `model.kind`."""

from __future__ import annotations

import importlib
from typing import Any

from eva_bench.models.bundle import ModelBundle


def load(model: dict[str, Any], path: str | None, device) -> ModelBundle:
    """The model with its weights, from `eva_bench.models.<kind>`; never touches the network."""
    return _module(model).load(model, path, device)


def skeleton(model: dict[str, Any], path: str | None) -> ModelBundle:
    """The model without weights, to check targets and ranks cheaply."""
    return _module(model).skeleton(model, path)


def _module(model: dict[str, Any]):
    return importlib.import_module(f"eva_bench.models.{model['kind']}")
