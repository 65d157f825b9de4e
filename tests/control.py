"""Small random decision transformers and files in the layout of the paper's data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from eva_bench.models import decision
from eva_bench.models.bundle import ModelBundle
from eva_bench.settings.schema import ModelSettings

TINY = decision.DecisionConfig(layers=2, heads=2, width=16, context=4, dropout=0.0, max_steps=200)


def tiny_model(folder: Path) -> ModelSettings:
    """The model section for a checkpoint of `write_decision`."""
    targets = ["c_attn", "c_proj", "c_fc", "action_head"]
    return ModelSettings(name="tiny", kind="decision", targets=targets, path=str(folder))


def write_decision(folder: Path, config: decision.DecisionConfig = TINY) -> Path:
    """A random checkpoint of this size; returns its folder."""
    torch.manual_seed(0)
    module = decision.DecisionTransformer(config)
    decision.save(ModelBundle(module, None, (), "decision"), folder)
    return folder


def trajectories(count: int, steps: int = 12, seed: int = 0) -> list[dict[str, np.ndarray]]:
    """Random trajectories."""
    generator = np.random.default_rng(seed)
    return [
        {
            "observations": generator.normal(size=(steps, 39)).astype(np.float32),
            "actions": generator.uniform(-1, 1, size=(steps, 4)).astype(np.float32),
            "rewards": generator.uniform(0, 10, size=steps).astype(np.float32),
        }
        for _ in range(count)
    ]


def write_npz(file: Path, rows: list[dict[str, np.ndarray]], compressed: bool = False, **changes) -> Path:
    """Trajectories as one file in the layout of the paper's data; a change replaces an array, None leaves it out."""
    arrays = {name: np.concatenate([row[name] for row in rows]) for name in ("observations", "actions", "rewards")}
    ends = np.cumsum([len(row["rewards"]) for row in rows]) - 1
    arrays["dones"] = np.isin(np.arange(len(arrays["rewards"])), ends)
    arrays["next_observations"] = arrays["observations"]
    arrays = {name: value for name, value in (arrays | changes).items() if value is not None}
    file.parent.mkdir(parents=True, exist_ok=True)
    (np.savez_compressed if compressed else np.savez)(file, **arrays)
    return file
