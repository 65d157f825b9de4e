"""`python run.py ... plan=true`: what a run would cost, before anything is downloaded or trained.

One forward and backward pass of a micro-batch and a step of the optimiser run on tensors without content, with the
model's real configuration: that of the checkpoint if it is here, otherwise `architecture` in conf/model/. What
evaluation keeps
is arithmetic: weights, and the keys and values of a batch of answers.
"""

from __future__ import annotations

import json
import math
import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from eva_bench import models
from eva_bench.assets.catalogue import entry
from eva_bench.assets.identity import model_folder
from eva_bench.methods.base import Method
from eva_bench.methods.layer import Adapter, Factors
from eva_bench.models.bundle import ModelBundle
from eva_bench.models.linear import weight_matrix
from eva_bench.models.recomputation import recomputed
from eva_bench.run.peak import PeakBytes
from eva_bench.settings.build import build
from eva_bench.settings.compose import dataset_names
from eva_bench.settings.schema import ModelSettings, Settings
from eva_bench.system.errors import UserError
from eva_bench.task import Task

GB = 1e9
RESERVE = 0.9  # of a device's memory: the rest goes to its context and to fragments


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
    datasets: list[str]

    @property
    def peak(self) -> int:
        """The most memory that the run needs at once."""
        return max(self.training, self.evaluation)


def cost_of(settings: Settings) -> Cost:
    """The cost of a run of these settings.

    Raises:
        UserError: neither the checkpoint nor its architecture is here, or targets and rank do not fit it.
    """
    method, task = build(settings.method, Method), build(settings.task, Task)
    with tempfile.TemporaryDirectory() as folder:
        model = _with_configuration(settings.model, Path(folder))
        bundle = models.skeleton(model, settings.data, task.outputs)  # on the meta device
    config = getattr(bundle.module, "config", None)
    method.check(bundle)
    with FakeTensorMode(allow_non_fake_inputs=True):  # autocast, which the meta device has not, works on its tensors
        _leave_meta(bundle.module, getattr(torch, settings.model.dtype))
        parameters = sum(p.numel() for p in bundle.module.parameters())
        weights = sum(p.numel() * p.element_size() for p in bundle.module.parameters())
        adapter = _adapter(method, bundle)
        trained = adapter.trainable_parameters()
        training = _training_peak(settings, bundle, adapter)
    cache = _generation_cache(settings, config)
    steps = _steps(settings)
    length = _length(settings, config)
    return Cost(
        parameters=parameters,
        trained=trained,
        weights=weights,
        optimiser=12 * trained,
        training=training,
        generation_cache=cache,
        evaluation=weights + 4 * trained + cache + _logits(settings, config),
        steps=steps,
        tokens=None if steps is None else steps * settings.train.batch_size * length,
        datasets=list(dict.fromkeys(dataset_names(settings))),
    )


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


def _adapter(method: Method, bundle: ModelBundle) -> Adapter:
    """The method's adapter with factors without content: LoRA's shapes, and what else the method trains."""
    if not method.exports_adapter:
        return Adapter.whole_model(bundle.module)
    rank, factors = getattr(method, "rank", None), {}
    for name in bundle.targets:
        out, width = weight_matrix(bundle.module.get_submodule(name)).shape
        r = rank if isinstance(rank, int) else min(out, width)
        s = torch.zeros(r) if "s" in method.trained else None
        magnitude = torch.zeros(out) if "magnitude" in method.trained else None
        factors[name] = Factors(torch.zeros(r, width), torch.zeros(out, r), s, magnitude)
    return Adapter.install(bundle.module, factors, trained=method.trained, head=bundle.head, biases=bundle.biases)


def _training_peak(settings: Settings, bundle: ModelBundle, adapter: Adapter) -> int:
    """Peak bytes of one micro-batch of training and the step after it."""
    train, module = settings.train, bundle.module
    forward = FORWARDS[bundle.kind]
    mixed = {"bf16": torch.bfloat16, "fp16": torch.bfloat16}.get(train.precision)  # the same size
    with PeakBytes() as peak, recomputed(module, train.gradient_checkpointing):
        peak.hold([list(module.parameters()), list(module.buffers())])
        optimiser = torch.optim.AdamW(list(adapter.trained().values()), lr=1e-3)
        module.train()
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed is not None):
            loss = forward(module, settings, train.micro_batch_size)
        loss.backward()
        optimiser.step()
    return peak.peak


def _language(module: nn.Module, settings: Settings, size: int) -> Tensor:
    ids = torch.zeros(size, _length(settings, module.config), dtype=torch.long)
    logits = module(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits
    return nn.functional.cross_entropy(logits[:, :-1].reshape(-1, logits.shape[-1]).float(), ids[:, 1:].reshape(-1))


def _classifier(module: nn.Module, settings: Settings, size: int) -> Tensor:
    ids = torch.zeros(size, _length(settings, module.config), dtype=torch.long)
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


def _length(settings: Settings, config: Any) -> int:
    """Tokens of the longest example."""
    if settings.model.kind == "decision":
        return int(config.context)
    if settings.model.kind == "vision":
        return 1
    most = int(getattr(config, "max_position_embeddings", 512)) - (2 if settings.model.kind == "classifier" else 0)
    return min(settings.data.max_length or most, most)


def _generation_cache(settings: Settings, config: Any) -> int:
    """Bytes of keys and values of a batch of the longest answers; none where nothing is generated."""
    new = settings.eval.max_new_tokens
    if settings.model.kind != "language" or not new:
        return 0
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    size = torch.empty((), dtype=getattr(torch, settings.model.dtype)).element_size()
    tokens = settings.eval.batch_size * (_length(settings, config) + new)
    return int(2 * config.num_hidden_layers * heads * width * size * tokens)


def _logits(settings: Settings, config: Any) -> int:
    """Bytes of the logits of a batch of prompts, in float32, and of their logarithms."""
    if settings.model.kind != "language":
        return 0
    tokens = 1 if settings.eval.max_new_tokens else _length(settings, config)
    return int(8 * settings.eval.batch_size * tokens * config.vocab_size)


def _steps(settings: Settings) -> int | None:
    """Steps of training; None where the number of rows is known only when they are there."""
    train = settings.train
    if train.steps is not None:
        return train.steps
    info = entry(dataset_names(settings)[0])
    parts = [entry(part) for part in info.get("parts", [])] or [info]
    rows = [part.get("splits", {}).get("train", {}).get("rows") for part in parts]
    if None in rows or train.epochs is None:
        return None
    return max(1, math.ceil(train.epochs * (settings.data.rows or sum(rows)) / train.batch_size))


def memory_sizes(text: str) -> dict[str, float]:
    """`24GB,80GB` in bytes, by name.

    Raises:
        UserError: something else.
    """
    sizes = {item: re.fullmatch(r"(\d+(?:\.\d+)?) ?GB", item.strip()) for item in text.split(",")}
    if wrong := [item for item, match in sizes.items() if match is None]:
        raise UserError(f"plan.memory={text}: '{wrong[0]}' is no size; give for example plan.memory=24GB,80GB.")
    return {item.strip(): float(match[1]) * GB for item, match in sizes.items() if match}


def devices() -> dict[str, float]:
    """Memory of the GPUs that are there, in bytes, by name."""
    found = (torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count()))
    return {facts.name: float(facts.total_memory) for facts in found}


def advice(settings: Settings, cost: Cost, memory: float) -> list[str]:
    """Settings that would make a run smaller where it does not fit."""
    limit, found = RESERVE * memory, []
    if cost.training > limit:
        if settings.train.micro_batch_size > 1:
            found.append("train.micro_batch_size=1 (the effective batch stays)")
        if not settings.train.gradient_checkpointing:
            found.append("train.gradient_checkpointing=true (the same numbers, more time)")
    if cost.evaluation > limit and settings.eval.batch_size > 1:
        found.append(f"eval.batch_size={max(1, settings.eval.batch_size // 4)} (an evaluation halves it by itself)")
    if cost.weights > 0.5 * limit and settings.model.dtype == "float32":
        found.append("model.dtype=bfloat16 (half the weights; other numbers)")
    return found


def report(settings: Settings, memory: dict[str, float]) -> str:
    """The cost of a run for the terminal."""
    cost = cost_of(settings)
    steps = "known when the data are here" if cost.steps is None else f"{cost.steps:,}, at most {cost.tokens:,} tokens"
    lines = [
        f"{settings.method.name} on {settings.task.name}, {settings.model.name}. Nothing was run.",
        f"parameters        {cost.parameters:,}, trained {cost.trained:,}",
        f"weights           {cost.weights / GB:.2f} GB in {settings.model.dtype}",
        f"optimiser         {cost.optimiser / GB:.2f} GB (gradients and two moments)",
        f"training peak     {cost.training / GB:.2f} GB, micro-batches of {settings.train.micro_batch_size}",
        f"generation cache  {cost.generation_cache / GB:.2f} GB, batches of {settings.eval.batch_size}",
        f"evaluation peak   {cost.evaluation / GB:.2f} GB",
        f"steps             {steps}",
        f"files             {', '.join(cost.datasets)}; {settings.model.hub_id or 'model in the repository'}",
    ]
    for name, size in memory.items():
        fits = cost.peak <= RESERVE * size
        help_ = "" if fits else f": {'; '.join(advice(settings, cost, size)) or 'a larger GPU'}"
        lines.append(f"{name:<17} {'fits' if fits else 'does not fit'}{help_}")
    return "\n".join(lines)
