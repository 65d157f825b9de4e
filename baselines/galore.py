"""GaLore (Zhao et al., arXiv:2403.03507): every weight is trained, by gradients projected to a low rank."""

from typing import Any

import torch
from pytorch_optimizer import GaLore as GaLoreAdamW
from pytorch_optimizer.optimizer.utils.galore import GaLoreProjector
from torch import nn

from baselines.full import Full
from eva_bench.methods.base import method_config
from eva_bench.methods.layer import Adapter
from eva_bench.settings.schema import TrainSettings

torch.serialization.add_safe_globals([GaLoreProjector])  # checkpoints hold the projections of the optimiser


@method_config
class GaLore(Full):
    """Full fine-tuning whose AdamW sees the gradients of the target layers in their leading `rank` directions.

    The directions are taken anew from the gradient every `update_gap` steps; updates are multiplied by
    `update_scale`. All other parameters are trained plainly: a new head, embeddings, a target that shares an embedding.
    """

    rank: int
    update_gap: int
    update_scale: float

    def parameter_groups(self, adapter: Adapter, train: TrainSettings) -> list[dict[str, Any]]:
        """The usual groups, the weights of the targets apart; see `Method.parameter_groups`."""
        embedded = {id(m.weight) for m in adapter.module.modules() if isinstance(m, nn.Embedding)}
        targets = {id(adapter.module.get_submodule(name).weight) for name in adapter.targets} - embedded
        projection = {
            "rank": self.rank,
            "update_proj_gap": self.update_gap,
            "scale": self.update_scale,
            "projection_type": "std",
        }
        groups = []
        for group in super().parameter_groups(adapter, train):
            projected = [p for p in group["params"] if id(p) in targets]
            plain = [p for p in group["params"] if id(p) not in targets]
            groups += [group | {"params": projected} | projection] if projected else []
            groups += [group | {"params": plain}] if plain else []
        return groups

    def optimizer(self, adapter: Adapter, groups: list[dict[str, Any]], total_steps: int) -> torch.optim.Optimizer:
        """GaLore's AdamW with torch's epsilon; see `Method.optimizer`."""
        return GaLoreAdamW(groups, eps=1e-8)
