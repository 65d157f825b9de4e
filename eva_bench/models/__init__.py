"""Loading models as bundles: one module per kind, chosen by `model.kind`."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, cast

from eva_bench.system.processes import distributed

if TYPE_CHECKING:  # torch is loaded with a model, not with this package; and EVA for PEFT needs no settings
    import torch

    from eva_bench.models.bundle import ModelBundle
    from eva_bench.settings.schema import DataSettings, ModelSettings


def load(
    model: ModelSettings,
    data: DataSettings,
    device: torch.device | str,
    outputs: int | None = None,
    seed: int = 0,
) -> ModelBundle:
    """The model with its weights, from `eva_bench.models.<kind>`; never touches the network.

    Args:
        model: which one, its adapted layers, dtype and attention.
        data: size and normalisation of images, for vision models.
        device: where the model goes.
        outputs: of a trained head on top (classes, or 1 for regression); None for models without one.
        seed: of the generator that a new head is initialised from; torch's global generator is not used.

    Returns:
        The model, its tokenizer or transform, and the layers to adapt; split among the processes of the job where
        `model.sharded` says so.

    Raises:
        UserError: not on this machine, broken, or not what its configuration says.
    """
    read = _module(model.kind).load
    if not (model.sharded and distributed()):
        return cast("ModelBundle", read(model, data, device, outputs, seed))
    sharding = _module("sharding")  # its processes read one after the other: each holds all weights for a while

    def part() -> ModelBundle:
        return cast("ModelBundle", sharding.split(read(model, data, "cpu", outputs, seed), device))

    return cast("ModelBundle", sharding.in_turn(part))


def skeleton(model: ModelSettings, data: DataSettings, outputs: int | None = None) -> ModelBundle:
    """The model without weights (meta device), to check targets and ranks before gigabytes are read.

    Args:
        model: as for `load`.
        data: as for `load`.
        outputs: as for `load`.

    Returns:
        A bundle without tokenizer.

    Raises:
        UserError: no readable configuration, or target layers that match nothing.
    """
    return _module(model.kind).skeleton(model, data, outputs)


def save(bundle: ModelBundle, folder: Path) -> None:
    """Write the whole trained model into a folder that `model.path` takes."""
    _module(bundle.kind).save(bundle, folder)


def _module(kind: str) -> ModuleType:
    return importlib.import_module(f"eva_bench.models.{kind}")
