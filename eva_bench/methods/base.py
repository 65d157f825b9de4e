"""What a method is: a frozen set of values and the factors from which its adapter starts.

A method is one file (this class, subclassed) and one YAML (`_target_` and every value). Nothing else is
edited to add one; the contract tests find it in `conf/method/`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, TypeVar, cast, dataclass_transform

import torch
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass as pydantic_dataclass
from torch import Tensor, nn

from eva_bench.methods.layer import Adapter, Factors
from eva_bench.models.bundle import ModelBundle
from eva_bench.models.linear import weight_matrix
from eva_bench.models.sharding import whole
from eva_bench.settings.schema import TrainSettings
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
    strict = pydantic_dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid", allow_inf_nan=False))
    return cast("type[T]", strict(cls))


@dataclass(frozen=True)
class Initialisation:
    """What an initialisation computed.

    Attributes:
        factors: initial factors by the name of the layer.
        facts: what the record keeps of it (plain JSON).
    """

    factors: dict[str, Factors]
    facts: dict[str, Any] = field(default_factory=dict)


@method_config
class Method(ABC):
    """Base class of all methods. Subclasses add their values as fields (no defaults: values live in the YAML).

    Attributes:
        trained: which factors receive gradients.
        reduces_base: the initial product is subtracted from the base weights, so that the function is unchanged.
        changes_function: the adapted model computes something else than the pretrained one from the start.
        uses_data: the initialisation reads calibration batches.
        uses_gradients: it also needs their loss, see `eva_bench.methods.gradients`.
        shares_batches: in a job of several processes each reads its own batches, and all get the same factors.
        exports_adapter: the trained model is the pretrained one with a stock PEFT adapter; otherwise its checkpoint.
        fixed_rank: every run trains `rank` components per layer, on average over the layers.
    """

    trained: ClassVar[tuple[str, ...]] = ("A", "B")
    reduces_base: ClassVar[bool] = False
    changes_function: ClassVar[bool] = False
    uses_data: ClassVar[bool] = False
    uses_gradients: ClassVar[bool] = False
    shares_batches: ClassVar[bool] = False
    exports_adapter: ClassVar[bool] = True
    fixed_rank: ClassVar[bool] = True

    @property
    def seeded(self) -> bool:
        """Whether the initial factors depend on the seed; without data and seed, all seeds of a base share them."""
        return True

    def check(self, bundle: ModelBundle) -> None:
        """Refuse what cannot work with this model, before anything expensive.

        Args:
            bundle: the model, its weights possibly on the meta device.

        Raises:
            UserError: with one sentence, for example for a rank that is larger than a layer.
        """
        rank = getattr(self, "rank", None)
        target_layers(bundle, rank if isinstance(rank, int) else None)

    def layer_rank(self, shape: tuple[int, int]) -> int | None:
        """How many components a layer starts with, for plans that know no weights.

        Args:
            shape: of the weight, (out, in).

        Returns:
            The rank; None where weights or data decide.
        """
        rank = getattr(self, "rank", None)
        return rank if isinstance(rank, int) else None

    def check_steps(self, total_steps: int) -> None:
        """Refuse a training of too few optimiser steps with a UserError, before the first evaluation."""
        return

    @abstractmethod
    def initialise(self, bundle: ModelBundle, calibration: Iterable[Any], seed: int) -> Initialisation:
        """Compute the initial factors of every target layer, a pure function of the arguments.

        Args:
            bundle: the untouched model; must not be changed here.
            calibration: re-creatable iterable of model inputs (dicts of tensors).
            seed: of this random stream; the same seed gives the same bytes.

        Returns:
            Factors by layer name, A (r, in) and B (out, r), and facts for the record.
        """

    def attach(self, bundle: ModelBundle, calibration: Iterable[Any], seed: int) -> Adapter:
        """Initialise and install in one step; arguments as for `initialise`."""
        return self.install(bundle, self.initialise(bundle, calibration, seed))

    def install(self, bundle: ModelBundle, initialisation: Initialisation) -> Adapter:
        """Put the initial factors into the model, which is changed in place.

        Args:
            bundle: the untouched model.
            initialisation: what `initialise` returned for it.

        Returns:
            The adapter, ready for training.
        """
        return Adapter.install(
            bundle.module,
            initialisation.factors,
            trained=self.trained,
            reduces_base=self.reduces_base,
            magnitude=bool(getattr(self, "magnitude", None)),
            head=bundle.head,
            biases=bundle.biases,
        )

    def penalty(self, adapter: Adapter, peak_lr: float) -> Tensor | None:
        """A term that is added to the loss once per optimiser step.

        Args:
            adapter: with the current factors.
            peak_lr: the learning rate after warm-up.

        Returns:
            A scalar with gradients, or None.
        """
        return None

    def parameter_groups(self, adapter: Adapter, train: TrainSettings) -> list[dict[str, Any]]:
        """Groups for the optimiser; biases, norms and other one-dimensional parameters do not decay.

        Neither do the factors of a method that reduces the base: they hold a part of the pretrained weight, which
        decay would pull towards zero, while it pulls the weight of other methods towards the pretrained one.

        Args:
            adapter: whose trained parameters are grouped.
            train: peak learning rate, the ratio of B's to it (LoRA+, arXiv:2402.12354), decay, and whether factors
                of a method that reduces the base decay all the same.

        Returns:
            Dicts with `params`, `lr` and `weight_decay`, as torch.optim takes them.
        """
        factors_B = {id(layer.B) for layer in adapter.layers.values()}
        kept = {id(layer.A) for layer in adapter.layers.values()} | factors_B
        if train.decay_all_factors or not self.reduces_base:
            kept = set()
        groups: dict[tuple[float, float], list[nn.Parameter]] = {}
        for parameter in adapter.trained().values():
            decay = train.weight_decay if parameter.ndim > 1 and id(parameter) not in kept else 0.0
            rate = train.lr * (train.lr_ratio or 1.0) if id(parameter) in factors_B else train.lr
            groups.setdefault((rate, decay), []).append(parameter)
        return [{"params": params, "lr": rate, "weight_decay": decay} for (rate, decay), params in groups.items()]

    def optimizer(self, adapter: Adapter, groups: list[dict[str, Any]], total_steps: int) -> torch.optim.Optimizer:
        """The optimiser of a training: AdamW.

        A method that does something of its own at every step registers torch's hooks on it: `register_step_pre_hook`
        sees the clipped gradients, `register_step_post_hook` the new weights. What a hook keeps from one step to the
        next belongs into `optimizer.state`, which is part of checkpoints.

        Args:
            adapter: that is trained.
            groups: what `parameter_groups` returned.
            total_steps: how many optimiser steps the training has.

        Returns:
            The optimiser over all groups.
        """
        return torch.optim.AdamW(groups, fused=True)

    def export(self, adapter: Adapter) -> dict[str, Factors]:
        """The LoRA factors that turn the *original* model into the trained one, by layer name."""
        return adapter.lora_factors()


@method_config
class LowRankMethod(Method):
    """Base class of methods with one rank and one scale for all layers; their YAMLs inherit `base/low_rank`.

    Attributes:
        alpha: None is scale 1.
        scaling: None scales the update by alpha / rank, `rslora` (arXiv:2312.03732) by alpha / sqrt(rank).
        magnitude: train the norm of every row of the weight beside its direction (DoRA, arXiv:2402.09353).
        title: of the progress bar.
    """

    rank: int
    alpha: float | None
    scaling: Literal["rslora"] | None
    magnitude: bool | None
    title: ClassVar[str] = "initial factors"

    @property
    def scale(self) -> float:
        """The factor on B A."""
        if self.alpha is None:
            return 1.0
        return self.alpha / (self.rank if self.scaling is None else math.sqrt(self.rank))

    def check(self, bundle: ModelBundle) -> None:
        """Refuse a scaling without an alpha; see `Method.check`."""
        super().check(bundle)
        if self.alpha is None and self.scaling is not None:
            raise UserError(f"adapter.scaling={self.scaling} scales alpha, and method.alpha is null.")


@method_config
class WeightMethod(LowRankMethod):
    """Base class of methods that need nothing but the weight of a layer for its initial factors."""

    def initialise(self, bundle: ModelBundle, calibration: Iterable[Any], seed: int) -> Initialisation:
        """The factors of each layer from its weight; see `Method.initialise`."""
        factors = {}
        for index, name, layer in each_target(bundle, self.rank, self.title):
            factors[name] = self.layer_factors(whole(weight_matrix(layer)).detach(), seed, index)
        return Initialisation(factors=factors)

    @abstractmethod
    def layer_factors(self, weight: Tensor, seed: int, index: int) -> Factors:
        """Initial factors of one layer.

        Args:
            weight: (out, in), as the model stores it; not to be changed.
            seed: of the initialisation.
            index: of the layer among the target layers; `layer_generator(seed, index)` is its random stream.

        Returns:
            A (rank, in) and B (out, rank).
        """


def target_layers(bundle: ModelBundle, rank: int | None = None) -> dict[str, nn.Module]:
    """The layers to adapt, by name.

    Args:
        bundle: the model and the names of its target layers.
        rank: checked against every layer; None for no check.

    Raises:
        UserError: the rank is below 1, or exceeds min(out, in) of a layer, which is named.
    """
    layers = {name: bundle.module.get_submodule(name) for name in bundle.targets}
    if rank is not None and rank < 1:
        raise UserError(f"rank {rank} must be at least 1.")
    for name, layer in layers.items():
        shape = weight_matrix(layer).shape
        if rank is not None and rank > min(shape):
            size = "x".join(map(str, shape))
            raise UserError(f"rank {rank} is larger than layer '{name}' ({size}) allows: at most {min(shape)}.")
    return layers


def each_target(bundle: ModelBundle, rank: int | None, title: str) -> Iterator[tuple[int, str, nn.Module]]:
    """(index, name, layer) of the layers to adapt, with a progress bar where it takes longer than a moment."""
    layers = target_layers(bundle, rank)
    with Bar(title, quiet_s=2.0) as bar:
        for index, (name, layer) in enumerate(layers.items()):
            yield index, name, layer
            bar(index + 1, len(layers))


def layer_generator(seed: int, index: int) -> torch.Generator:
    """A separate random stream for each layer, so that no layer's initial factors depend on the other layers."""
    return torch.Generator().manual_seed((seed * 1_000_003 + index) % 2**63)
