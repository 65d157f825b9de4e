"""What a method is: a frozen set of values and the factors from which its adapter starts.

A method is one file (this class, subclassed) and one YAML (`_target_` and every value). Nothing else is
edited to add one; the contract tests find it in `conf/method/`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import field
from typing import Any, ClassVar, TypeVar, dataclass_transform

import torch
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass as pydantic_dataclass
from torch import Tensor, nn

from eva_bench.methods.layer import Adapter, Factors
from eva_bench.models.bundle import ModelBundle
from eva_bench.system.errors import UserError
from eva_bench.system.progress import Bar

T = TypeVar("T")


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(field,))
def method_config(cls: type[T]) -> type[T]:
    """Make a class a frozen dataclass whose values are checked: unknown keys and wrong types are refused.

    Args:
        cls: the class; its annotated fields are the values of the YAML.

    Returns:
        The same class as a strict pydantic dataclass with keyword arguments only.
    """
    return pydantic_dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))(cls)


@method_config
class Initialisation:
    """What an initialisation computed: factors per layer and facts for the record (plain JSON)."""

    factors: dict[str, Any]
    facts: dict[str, Any] = field(default_factory=dict)


@method_config
class Method:
    """Base class. Subclasses add their values as fields (no defaults: values live in the YAML).

    Attributes:
        trained: which factors receive gradients.
        reduces_base: the start is subtracted from the base weights, so that the function is unchanged.
        uses_data: the initialisation reads calibration batches.
    """

    trained: ClassVar[tuple[str, ...]] = ("A", "B")
    reduces_base: ClassVar[bool] = False
    uses_data: ClassVar[bool] = False

    def initialise(self, bundle: ModelBundle, calibration: Iterable, seed: int) -> Initialisation:
        """Compute the start: `Factors` per target layer, a pure function of its arguments.

        Args:
            bundle: the untouched model; must not be changed here.
            calibration: re-creatable iterable of model inputs (dicts of tensors).
            seed: of this stream; the same seed gives the same bytes.
        """
        raise NotImplementedError

    def attach(self, bundle: ModelBundle, calibration: Iterable, seed: int) -> Adapter:
        """Initialise and install in one step."""
        return self.install(bundle, self.initialise(bundle, calibration, seed))

    def install(self, bundle: ModelBundle, start: Initialisation) -> Adapter:
        """Put the computed start into the model, which is changed in place."""
        return Adapter.install(
            bundle.module, start.factors, trained=self.trained, reduces_base=self.reduces_base,
            head=bundle.head, biases=bundle.biases,
        )  # fmt: skip

    def penalty(self, adapter: Adapter, peak_lr: float) -> Tensor | None:
        """A term added to the loss once per optimiser step, or None."""
        return None

    def parameter_groups(
        self, adapter: Adapter, lr: float, weight_decay: float, lr_ratio: float | None = None
    ) -> list[dict]:
        """Optimiser groups; biases, norms and other one-dimensional parameters do not decay.

        Args:
            lr_ratio: learning rate of every B over that of all else (LoRA+, arXiv:2402.12354); None means 1.
        """
        factors_B = {id(layer.B) for layer in adapter.layers.values()}
        groups: dict[tuple[float, float], list[nn.Parameter]] = {}
        for parameter in adapter.trained().values():
            decay = weight_decay if parameter.ndim > 1 else 0.0
            rate = lr * (lr_ratio or 1.0) if id(parameter) in factors_B else lr
            groups.setdefault((rate, decay), []).append(parameter)
        return [{"params": params, "lr": rate, "weight_decay": decay} for (rate, decay), params in groups.items()]

    def export(self, adapter: Adapter) -> dict[str, Factors]:
        """Per layer, the LoRA factors that turn the *original* model into the trained one."""
        return adapter.lora_factors()


def target_layers(bundle: ModelBundle, rank: int | None = None) -> dict[str, nn.Module]:
    """The layers to adapt, by name; refuses a rank larger than a layer.

    Raises:
        UserError: rank exceeds min(out, in) of a layer, naming the layer.
    """
    layers = {name: bundle.module.get_submodule(name) for name in bundle.targets}
    for name, layer in layers.items():
        smallest = min(layer.weight.shape)
        if rank is not None and rank < 1:
            raise UserError(f"rank {rank} must be at least 1.")
        if rank is not None and rank > smallest:
            shape = "x".join(map(str, layer.weight.shape))
            raise UserError(f"rank {rank} is larger than layer '{name}' ({shape}) allows: at most {smallest}.")
    return layers


def each_target(bundle: ModelBundle, rank: int | None, title: str) -> Iterator[tuple[int, str, nn.Module]]:
    """(index, name, layer) of the layers to adapt, with progress where it takes longer than a moment."""
    layers = target_layers(bundle, rank)
    with Bar(title, quiet_s=2.0) as bar:
        for index, (name, layer) in enumerate(layers.items()):
            yield index, name, layer
            bar(index + 1, len(layers))


def layer_generator(seed: int, index: int) -> torch.Generator:
    """An own random stream per layer, so that one layer's start does not depend on the others."""
    return torch.Generator().manual_seed((seed * 1_000_003 + index) % 2**63)
