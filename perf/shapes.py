"""Language models of a recipe's true shape with random weights, and the steps that plans are compared with."""

from __future__ import annotations

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from eva_bench.methods.layer import Adapter
from eva_bench.models.bundle import ModelBundle
from eva_bench.models.linear import find_targets
from eva_bench.models.recomputation import recomputed
from eva_bench.run.plan_cost import FORWARDS
from eva_bench.settings.schema import ModelSettings, Settings


def random_language(model: ModelSettings, device: torch.device | str, **shape: int) -> ModelBundle:
    """A model of conf/model/ with random weights.

    Args:
        model: its settings, with `architecture`.
        device: where it is made; nothing of it is anywhere else.
        shape: what its configuration has instead.
    """
    values = {**(model.architecture or {}), **shape}
    config = AutoConfig.for_model(values.pop("model_type"), **values)
    torch.manual_seed(0)
    options = {"dtype": getattr(torch, model.dtype), "attn_implementation": model.attention}
    with torch.device(device):
        module = AutoModelForCausalLM.from_config(config, **options).eval()
    return ModelBundle(module, None, find_targets(module, model.targets), "language")


def train_steps(settings: Settings, bundle: ModelBundle, adapter: Adapter, steps: int = 2) -> None:
    """Steps of training on inputs of the longest length, each of two micro-batches, as a plan assumes them."""
    train, device = settings.train, next(bundle.module.parameters()).device
    optimiser = torch.optim.AdamW(list(adapter.trained().values()), lr=1e-4, fused=True)
    bundle.module.train()
    with recomputed(bundle.module, train.gradient_checkpointing), torch.device(device):
        for _ in range(steps):
            for _ in range(2):
                with torch.autocast(device.type, torch.bfloat16, enabled=train.precision == "bf16"):
                    loss = FORWARDS[bundle.kind](bundle.module, settings, train.micro_batch_size)
                loss.backward()
                del loss
            optimiser.step()
            optimiser.zero_grad()


@torch.no_grad()
def evaluate(settings: Settings, bundle: ModelBundle, adapter: Adapter) -> None:
    """The loss on a batch of evaluation, and for language models a batch of answers of every new token."""
    device, module = next(bundle.module.parameters()).device, bundle.module.eval()
    with torch.device(device), torch.autocast(device.type, torch.bfloat16, enabled=settings.eval.precision == "bf16"):
        FORWARDS[bundle.kind](module, settings, settings.eval.batch_size)
        if bundle.kind == "language" and settings.eval.max_new_tokens:
            answer(settings, bundle)


def answer(settings: Settings, bundle: ModelBundle) -> None:
    """A batch of answers of every new token to prompts of the longest length."""
    device, new = next(bundle.module.parameters()).device, settings.eval.max_new_tokens
    length = settings.data.max_length or bundle.module.config.max_position_embeddings
    ids = torch.ones(settings.eval.batch_size, length, dtype=torch.long, device=device)
    bundle.module.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=new, min_new_tokens=new)
