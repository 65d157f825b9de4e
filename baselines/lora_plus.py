"""LoRA+ (Hayou et al., arXiv:2402.12354): B learns faster than A."""

from typing import Any

from baselines.lora import LoRA
from eva_bench.methods.base import method_config
from eva_bench.methods.layer import Adapter
from eva_bench.settings.schema import TrainSettings


@method_config
class LoRAPlus(LoRA):
    """LoRA with `lr_ratio` times the learning rate for every B."""

    lr_ratio: float

    def parameter_groups(self, adapter: Adapter, train: TrainSettings) -> list[dict[str, Any]]:
        """Groups with the method's own ratio; see `Method.parameter_groups`."""
        return super().parameter_groups(adapter, train.model_copy(update={"lr_ratio": self.lr_ratio}))
