"""HRP, high-rank preheating (Chen et al., arXiv:2502.07739): a short LoRA of higher rank finds the directions."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain, repeat
from typing import Any

import torch
from torch import Tensor, nn

from baselines.lora import kaiming
from eva_bench.methods.base import Initialisation, LowRankMethod, layer_generator, method_config, target_layers
from eva_bench.methods.layer import Adapter, Factors
from eva_bench.methods.svd import truncated_svd
from eva_bench.models.bundle import ModelBundle
from eva_bench.models.linear import weight_matrix
from eva_bench.system.errors import UserError
from eva_bench.system.progress import Bar


@method_config
class HRP(LowRankMethod):
    """A = the leading right singular vectors of B A after `preheat_steps` of a LoRA of higher rank; B = 0.

    The preheated LoRA has `preheat_ratio` times the rank (at most a layer's smaller side) and is thrown away.
    """

    preheat_ratio: int
    preheat_steps: int
    preheat_lr: float
    uses_data = True
    uses_gradients = True

    def initialise(self, bundle: ModelBundle, calibration: Any, seed: int) -> Initialisation:
        """Preheat and decompose; see `Method.initialise`."""
        self.check(bundle)
        first = {}
        for index, (name, layer) in enumerate(target_layers(bundle).items()):
            out_width, in_width = weight_matrix(layer).shape
            rank = min(self.preheat_ratio * self.rank, out_width, in_width)
            A = kaiming(rank, in_width, layer_generator(seed, index))
            first[name] = Factors(A, torch.zeros(out_width, rank), scale=self.scale)
        factors = {}
        with borrowed(bundle.module, first) as adapter:
            self._preheat(adapter, calibration)
            for index, (name, layer) in enumerate(adapter.layers.items()):
                product = layer.factors().delta().detach()  # (out, in)
                self._refuse_nothing(product, name)
                _, _, V = truncated_svd(product, self.rank, seed=seed + index)
                factors[name] = Factors(V, torch.zeros(len(layer.B), self.rank), scale=self.scale)
        return Initialisation(factors=factors, facts={"batches": self.preheat_steps})

    def _refuse_nothing(self, product: Tensor, name: str) -> None:
        """Raise UserError for a preheated product (out, in) that has no directions."""
        if not torch.isfinite(product).all():
            raise UserError(
                f"the preheating of layer '{name}' is not finite: give method.preheat_lr below {self.preheat_lr:g}."
            )
        if not product.any():
            raise UserError(
                f"layer '{name}' learned nothing in method.preheat_steps={self.preheat_steps} steps, so that it has no "
                "directions to start from: the loss may not depend on it."
            )

    def _preheat(self, adapter: Adapter, calibration: Any) -> None:
        """Train the larger adapter with AdamW at a constant rate, a calibration batch a step."""
        optimizer = torch.optim.AdamW(adapter.trained().values(), lr=self.preheat_lr, weight_decay=0.0)
        batches = chain.from_iterable(repeat(calibration))
        with Bar("preheating", quiet_s=2.0) as bar, torch.enable_grad():
            for step, batch in zip(range(self.preheat_steps), batches, strict=False):
                calibration.loss(adapter.module, batch).backward()
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
                bar(step + 1, self.preheat_steps)


@contextmanager
def borrowed(module: nn.Module, factors: dict[str, Factors]) -> Iterator[Adapter]:
    """A model with an adapter inside the block, in evaluation mode; as it was after it."""
    flags = {parameter: parameter.requires_grad for parameter in module.parameters()}
    modes = {part: part.training for part in module.modules()}
    adapter = Adapter.install(module, factors, trained=("A", "B"))
    module.eval()
    try:
        yield adapter
    finally:
        for name, layer in adapter.layers.items():
            parent, _, child = name.rpartition(".")
            setattr(module.get_submodule(parent), child, layer.base)
        for parameter, flag in flags.items():
            parameter.requires_grad_(flag)
        for part, mode in modes.items():
            part.training = mode
