"""What a run would cost, computed without its weights.

One forward and backward pass of a micro-batch and a step of the optimiser run on tensors without content, with the
model's real configuration: that of the checkpoint if it is here, otherwise `architecture` in conf/model/. What
evaluation keeps is arithmetic: weights, and the keys and values of a batch of answers.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from eva_bench import models
from eva_bench.assets.catalogue import entry
from eva_bench.assets.identity import model_folder
from eva_bench.methods.base import Method
from eva_bench.methods.layer import Adapter, Factors
from eva_bench.models.bundle import ModelBundle
from eva_bench.models.linear import weight_matrix
from eva_bench.models.recomputation import recomputed
from eva_bench.models.sharding import blocks
from eva_bench.run.peak import PeakBytes
from eva_bench.settings.build import build
from eva_bench.settings.compose import dataset_names
from eva_bench.settings.schema import ModelSettings, Settings
from eva_bench.system.errors import UserError
from eva_bench.task import Task


@dataclass(frozen=True)
class Cost:
    """What a run would take. Memory in bytes."""

    parameters: int
    trained: int
    weights: int
    optimiser: int  # gradients and moments of what is trained
    training: int  # peak
    generation_cache: int
    evaluation: int  # peak
    steps: int | None  # None: the number of rows is not known
    tokens: int | None  # at most, in training
    flops: int | None  # of all forward and backward passes of training, of examples of the longest length

    @property
    def peak(self) -> int:
        """The most memory that the run needs at once."""
        return max(self.training, self.evaluation)


def cost_of(settings: Settings, processes: int = 1) -> Cost:
    """The cost of a run of these settings.

    Args:
        settings: of the run.
        processes: of its job; where `model.sharded` splits the weights, memory is that of one of them.

    Raises:
        UserError: neither the checkpoint nor its architecture is here, or targets and rank do not fit it.
    """
    method, bundle = build(settings.method, Method), skeleton_of(settings)
    config = getattr(bundle.module, "config", None)
    method.check(bundle)
    with FakeTensorMode(allow_non_fake_inputs=True):  # autocast, which the meta device has not, works on its tensors
        _leave_meta(bundle.module, getattr(torch, settings.model.dtype) if method.exports_adapter else torch.float32)
        parameters = sum(p.numel() for p in bundle.module.parameters())
        weights = _bytes(bundle.module)
        adapter = adapter_of(settings, bundle)
        trained = adapter.trainable_parameters()
        resident = _bytes(bundle.module)  # weights and what the adapter adds to them
        training = _training_peak(settings, bundle, adapter)
        answering = _evaluation_peak(settings, bundle)
        step_flops = _step_flops(settings, bundle)
    elsewhere = _weights_elsewhere(bundle.module, processes) if settings.model.sharded else 0
    cache = _generation_cache(settings, config)
    steps = steps_of(settings)
    length = example_length(settings, config)
    return Cost(
        parameters=parameters,
        trained=trained,
        weights=weights - elsewhere,
        optimiser=12 * trained,
        training=training - elsewhere,
        generation_cache=cache,
        evaluation=max(answering, resident + cache + _logits(settings, config)) - elsewhere,
        steps=steps,
        tokens=None if steps is None else steps * settings.train.batch_size * length,
        flops=None if steps is None else steps * step_flops,
    )


def skeleton_of(settings: Settings) -> ModelBundle:
    """The model without weights, on the meta device.

    Raises:
        UserError: neither the checkpoint nor its architecture is here, or targets do not fit it.
    """
    task = build(settings.task, Task)
    with tempfile.TemporaryDirectory() as folder:
        return models.skeleton(_with_configuration(settings.model, Path(folder)), settings.data, task.outputs)


def _with_configuration(model: ModelSettings, folder: Path) -> ModelSettings:
    """The model with a folder that holds its configuration."""
    try:
        model_folder(model)
        return model
    except UserError:
        if model.architecture is None:
            raise
    (folder / "config.json").write_text(json.dumps(model.architecture))
    return model.model_copy(update={"path": str(folder)})


def _leave_meta(module: nn.Module, dtype: torch.dtype) -> None:
    """Parameters and buffers without content on the CPU instead of the meta device; tied ones stay tied."""
    made: dict[int, nn.Parameter] = {}
    for part in module.modules():
        for name, parameter in part._parameters.items():
            if parameter is not None:
                empty = torch.empty(parameter.shape, dtype=dtype, device="cpu")
                part._parameters[name] = made.setdefault(id(parameter), nn.Parameter(empty))
        for name, buffer in part._buffers.items():
            if buffer is not None:
                part._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype, device="cpu")


def adapter_of(settings: Settings, bundle: ModelBundle) -> Adapter:
    """An adapter of the method's shapes, all factors zero. Where weights decide what is trained, it is everything."""
    method = build(settings.method, Method)
    if not method.exports_adapter:
        return Adapter(bundle.module.requires_grad_(True))
    factors = {}
    for name in bundle.targets:
        out, width = weight_matrix(bundle.module.get_submodule(name)).shape
        r = method.layer_rank((out, width)) or settings.adapter.rank  # ranks by data have this mean
        s = torch.zeros(r) if "s" in method.trained else None
        factors[name] = Factors(torch.zeros(r, width), torch.zeros(out, r), s)
    adapter = Adapter.install(bundle.module, factors, trained=method.trained, head=bundle.head, biases=bundle.biases)
    if getattr(method, "magnitude", None):
        for layer in adapter.layers.values():
            layer.magnitude = nn.Parameter(torch.zeros(weight_matrix(layer.base).shape[0]))
    return adapter


def _training_peak(settings: Settings, bundle: ModelBundle, adapter: Adapter) -> int:
    """Peak bytes of a step of training that has the optimiser's moments beside its activations."""
    train, module = settings.train, bundle.module
    mixed = train.precision != "float32"
    with PeakBytes() as peak, recomputed(module.train(), train.gradient_checkpointing):
        peak.hold([list(module.parameters()), list(module.buffers())])
        trained = list(adapter.trained().values())
        optimiser = torch.optim.AdamW(trained, lr=1e-3)
        for parameter in trained:
            parameter.grad = torch.zeros_like(parameter)
        optimiser.step()  # the moments are there from now on
        optimiser.zero_grad()
        for _ in range(min(2, train.batch_size // train.micro_batch_size)):  # gradients are kept from one to the next
            with torch.autocast("cpu", torch.bfloat16, enabled=mixed):  # fp16 has the same size
                loss = FORWARDS[bundle.kind](module, settings, train.micro_batch_size)
            loss.backward()
            del loss
        optimiser.step()
    return peak.peak


def _step_flops(settings: Settings, bundle: ModelBundle) -> int:
    """Floating-point operations of matrix products in the forward and backward passes of one step."""
    train = settings.train
    with FlopCounterMode(display=False) as counter, recomputed(bundle.module.train(), train.gradient_checkpointing):
        FORWARDS[bundle.kind](bundle.module, settings, train.micro_batch_size).backward()
    return int(counter.get_total_flops()) * (train.batch_size // train.micro_batch_size)


def _evaluation_peak(settings: Settings, bundle: ModelBundle) -> int:
    """Peak bytes of the loss on a batch of reference answers, the largest thing that an evaluation does at once."""
    module = bundle.module.eval()
    with PeakBytes() as peak, torch.no_grad():
        peak.hold([list(module.parameters()), list(module.buffers())])
        with torch.autocast("cpu", torch.bfloat16, enabled=settings.eval.precision == "bf16"):
            FORWARDS[bundle.kind](module, settings, settings.eval.batch_size)
    return peak.peak


def _language(module: nn.Module, settings: Settings, size: int) -> Tensor:
    ids = torch.zeros(size, example_length(settings, module.config), dtype=torch.long)
    logits = module(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits
    return nn.functional.cross_entropy(logits[:, :-1].reshape(-1, logits.shape[-1]).float(), ids[:, 1:].reshape(-1))


def _classifier(module: nn.Module, settings: Settings, size: int) -> Tensor:
    ids = torch.zeros(size, example_length(settings, module.config), dtype=torch.long)
    return module(input_ids=ids, attention_mask=torch.ones_like(ids)).logits.float().sum()


def _vision(module: nn.Module, settings: Settings, size: int) -> Tensor:
    pixels = settings.data.image_size or 224
    return module(x=torch.zeros(size, 3, pixels, pixels)).float().sum()


def _decision(module: nn.Module, settings: Settings, size: int) -> Tensor:
    config: Any = module.config
    window = (size, config.context)
    states, actions = torch.zeros(*window, config.state_size), torch.zeros(*window, config.action_size)
    steps = torch.zeros(window, dtype=torch.long)
    return module(states, torch.zeros(window), actions, torch.zeros(window), steps).float().sum()


FORWARDS: dict[str, Callable[[nn.Module, Settings, int], Tensor]] = {
    "language": _language,
    "classifier": _classifier,
    "vision": _vision,
    "decision": _decision,
}


def example_length(settings: Settings, config: Any) -> int:
    """Tokens of the longest example."""
    if settings.model.kind == "decision":
        return int(config.context)
    if settings.model.kind == "vision":
        return 1
    most = int(getattr(config, "max_position_embeddings", 512)) - (2 if settings.model.kind == "classifier" else 0)
    return min(settings.data.max_length or most, most)


def _weights_elsewhere(module: nn.Module, processes: int) -> int:
    """Bytes of weights that a process does not hold: it has its part, two blocks at work and what is in no block."""
    inside = [_bytes(block) for block in blocks(module)]
    gathered = _bytes(module) - sum(inside) + 2 * max(inside, default=0)
    return max(0, _bytes(module) - _bytes(module) // processes - gathered)


def _bytes(module: nn.Module) -> int:
    return sum(p.numel() * p.element_size() for p in module.parameters())


def _generation_cache(settings: Settings, config: Any) -> int:
    """Bytes of keys and values of a batch of the longest answers; none where nothing is generated."""
    new = settings.eval.max_new_tokens
    if settings.model.kind != "language" or not new:
        return 0
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    size = 2 if settings.eval.precision == "bf16" else getattr(torch, settings.model.dtype).itemsize
    tokens = settings.eval.batch_size * (example_length(settings, config) + new)
    return int(2 * config.num_hidden_layers * heads * width * size * tokens)


def _logits(settings: Settings, config: Any) -> int:
    """Bytes of the logits of the next token of a batch of answers, in float32, and of their logarithms."""
    return int(8 * settings.eval.batch_size * config.vocab_size) if settings.model.kind == "language" else 0


def steps_of(settings: Settings) -> int | None:
    """Steps of training; None where the number of rows is known only when they are there."""
    train = settings.train
    if train.steps is not None:
        return train.steps
    info = entry(dataset_names(settings)[0])
    parts = [entry(part) for part in info.get("parts", [])] or [info]
    rows = [part.get("splits", {}).get("train", {}).get("rows") for part in parts]
    total = settings.data.rows or (None if None in rows else sum(rows))
    if total is None or train.epochs is None:
        return None
    return max(1, math.ceil(train.epochs * total / train.batch_size))
