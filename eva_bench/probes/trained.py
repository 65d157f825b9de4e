"""What a fine-tuning left on disk, and the weights before and after it.

Every probe compares `W0`, the weight of the untouched model, with `W0 + update`, the merged weight, both in float32:
rounding the sum to bf16 would lose small updates.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from peft.utils.other import get_pattern_key
from peft.utils.save_and_load import load_peft_weights
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from eva_bench.methods.layer import Factors, own_weight
from eva_bench.methods.peft_export import PREFIX
from eva_bench.models.linear import is_adaptable, weight_matrix
from eva_bench.system.errors import UserError

CONFIG = "adapter_config.json"
WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
# PEFT's initialisations that leave the base model as it is; all others store an adapter to a changed base.
KEEPS_BASE = (True, False, "gaussian", "orthogonal", "eva", "mica")
# Settings of PEFT whose layers are not W0 + scale * B A of one linear layer.
UNREADABLE = (
    "layer_replication", "target_parameters", "trainable_token_indices", "lora_bias", "kasa_config", "use_qalora",
    "use_bdlora", "monteclora_config", "arrow_config", "alora_invocation_tokens", "megatron_config",
)  # fmt: skip
_UNTOUCHED = re.compile(r"\.original_module\.|\.base_layer\.weight$")  # PEFT stores some tensors of the base model, too
_WRAPPER = re.compile(r"\.base_layer\.|\.modules_to_save\.[^.]+\.")
_FACTOR = re.compile(r"(?P<layer>.+)\.(?P<part>lora_A|lora_B|lora_magnitude_vector)(\.weight)?")


@dataclass(frozen=True)
class Layer:
    """One weight matrix before fine-tuning and what was added to it.

    Attributes:
        base: (out, in) float32.
        update: (out, in) float32, merged weight minus base.
        rank: of the adapter; None where the whole matrix was trained.
    """

    base: Tensor
    update: Tensor
    rank: int | None = None

    @property
    def tuned(self) -> Tensor:
        """The merged weight, (out, in)."""
        return self.base + self.update


@dataclass(frozen=True)
class Trained:
    """What a fine-tuning left, by the names of the untouched model.

    Attributes:
        factors: low-rank updates of linear layers.
        parameters: tensors that were trained in full: head, biases, or the whole model.
        base: the base model's name in the adapter's configuration.
    """

    factors: dict[str, Factors] = field(default_factory=dict)
    parameters: dict[str, Tensor] = field(default_factory=dict)
    base: str | None = None

    @property
    def outputs(self) -> int | None:
        """How many outputs the head that was trained in full has, if there is one."""
        heads = [value for name, value in self.parameters.items() if name.endswith("weight") and value.ndim == 2]
        return len(heads[-1]) if heads else None


def read_adapter(folder: Path) -> Trained:
    """A stock PEFT LoRA adapter from its folder.

    Raises:
        UserError: no adapter, an adapter of another kind, or one that belongs to a changed base model.
    """
    config = _read_config(folder)
    _check_config(config, folder.name)
    try:
        tensors = load_peft_weights(str(folder), device="cpu")
    except Exception as error:
        raise UserError(f"The adapter '{folder.name}' cannot be read: {str(error).splitlines()[0]}") from error
    parts: dict[str, dict[str, Tensor]] = {}
    parameters = {}
    for key, value in tensors.items():
        name = key.removeprefix(PREFIX)
        if match := _FACTOR.fullmatch(name):
            parts.setdefault(match["layer"], {})[match["part"]] = value.float()
        elif "lora_" in name:
            raise UserError(f"The adapter '{folder.name}' holds '{name}'; probes read LoRA on linear layers only.")
        elif not _UNTOUCHED.search(name):
            parameters[_WRAPPER.sub(".", name)] = value.float()
    factors = {name: _factors(name, found, config) for name, found in parts.items()}
    return Trained(factors, parameters, config.get("base_model_name_or_path"))


def from_module(module: nn.Module) -> Trained:
    """A fully fine-tuned model, given loaded."""
    state = module.state_dict()
    return Trained(parameters={name: value.float() for name, value in state.items() if value.is_floating_point()})


def layers(module: nn.Module, trained: Trained, targets: tuple[str, ...] = ()) -> Iterator[tuple[str, Layer]]:
    """The changed linear layers, one after the other, so that a large model needs float32 for one at a time.

    Args:
        module: the untouched model.
        targets: which layers to look at where all weights were trained.

    Raises:
        UserError: the adapter is not one of this model.
    """
    for name in trained.factors or targets:
        yield name, _layer(module, trained, name)


@torch.no_grad()
def install(module: nn.Module, trained: Trained) -> None:
    """Put the merged weights into the model, in place; it must be in float32.

    Raises:
        UserError: the adapter is not one of this model.
    """
    for name, layer in layers(module, trained):
        linear = module.get_submodule(name)
        own_weight(module, linear)
        weight_matrix(linear).data.copy_(layer.tuned)
    state = module.state_dict()
    for name, value in trained.parameters.items():
        if name not in state or state[name].shape != value.shape:
            raise _another_base(trained, name)
        state[name].copy_(value)


def _layer(module: nn.Module, trained: Trained, name: str) -> Layer:
    try:
        linear = module.get_submodule(name)
    except AttributeError as error:
        raise _another_base(trained, name) from error
    if not is_adaptable(linear):
        raise UserError(f"'{name}' is no linear layer of the base model; probes read LoRA on linear layers only.")
    base = weight_matrix(linear).detach().float()
    if name not in trained.factors:
        weight = trained.parameters.get(f"{name}.weight")
        if weight is None or weight.shape != linear.weight.shape:
            raise _another_base(trained, name)
        return Layer(base, (weight.T if isinstance(linear, Conv1D) else weight).to(base) - base)
    factors = trained.factors[name]
    if base.shape != (len(factors.B), factors.A.shape[1]):
        raise _another_base(trained, name)
    update = factors.delta().to(base)
    if factors.magnitude is not None:  # DoRA: rows rescaled to trained norms
        merged = base + update
        update = merged * (factors.magnitude.to(base) / merged.norm(dim=1))[:, None] - base
    return Layer(base, update, factors.rank)


def _another_base(trained: Trained, name: str) -> UserError:
    of = f", '{Path(trained.base).name}' by its configuration" if trained.base else ""
    return UserError(f"The base has no '{name}' of the trained shape: this was trained on another base model{of}.")


def _read_config(folder: Path) -> dict[str, Any]:
    if not folder.is_dir():
        raise UserError(f"There is no adapter at '{folder}': it is not a folder.")
    if not (folder / CONFIG).is_file():
        if (folder / "config.json").is_file():
            raise UserError(f"'{folder.name}' is a whole checkpoint, not an adapter: give it as checkpoint={folder}.")
        raise UserError(f"'{folder.name}' is not a PEFT adapter: it has no {CONFIG}.")
    if not any((folder / name).is_file() for name in WEIGHTS):
        raise UserError(f"The adapter '{folder.name}' has no {WEIGHTS[0]}: its weights are gone.")
    try:
        return json.loads((folder / CONFIG).read_text())
    except ValueError as error:
        raise UserError(f"{CONFIG} of '{folder.name}' is not valid JSON.") from error


def _check_config(config: dict[str, Any], name: str) -> None:
    if config.get("peft_type") != "LORA":
        raise UserError(f"'{name}' is an adapter of type {config.get('peft_type')}; probes read LoRA adapters only.")
    start = config.get("init_lora_weights", True)
    if start not in KEEPS_BASE:
        raise UserError(
            f"The adapter '{name}' was initialised with '{start}' and never converted: it belongs to a changed base. "
            "Convert it with model.save_pretrained(<new folder>, path_initial_model_for_weight_conversion=<folder of "
            "the adapter as it was before training>)."
        )
    if found := [key for key in UNREADABLE if config.get(key)]:
        raise UserError(f"The adapter '{name}' uses PEFT's {found[0]}, which probes cannot merge.")


def _factors(name: str, found: dict[str, Tensor], config: dict[str, Any]) -> Factors:
    if "lora_A" not in found or "lora_B" not in found:
        raise UserError(f"The adapter has only one of A and B for '{name}': its file is incomplete.")
    A, B = found["lora_A"], found["lora_B"]
    if A.ndim != 2:
        raise UserError(f"The adapter's '{name}' is no linear layer; probes read LoRA on linear layers only.")
    rank, alphas = len(A), config.get("alpha_pattern") or {}
    alpha = alphas.get(get_pattern_key(list(alphas), name), config["lora_alpha"])
    scale = alpha / rank**0.5 if config.get("use_rslora") else alpha / rank
    return Factors(A, B, magnitude=found.get("lora_magnitude_vector"), scale=scale)
