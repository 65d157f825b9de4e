"""Every trained adapter as a stock PEFT LoRA adapter that loads on the untouched base model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import cast

from safetensors.torch import save_file
from torch import Tensor, nn

from eva_bench.methods.layer import Factors

PREFIX = "base_model.model."
TASK_TYPES = {"language": "CAUSAL_LM", "classifier": "SEQ_CLS"}


def export_adapter(
    folder: Path,
    factors: dict[str, Factors],
    module: nn.Module,
    kind: str,
    head: tuple[str, ...],
    base: str,
    biases: Mapping[str, Tensor] | None = None,
    revision: str | None = None,
) -> None:
    """Write `adapter_config.json` and `adapter_model.safetensors`.

    Args:
        folder: made if it is not there.
        factors: per layer, relative to the original weights; ranks and scales may differ between layers.
        module: the trained model, from which the head's weights are taken.
        kind: of the model; the config's task type follows from it.
        head: modules trained in full, written as PEFT's `modules_to_save`.
        base: hub id or folder of the base model for the config.
        biases: trained biases of the model by name, written as PEFT does with `bias="all"`. Loading them changes the
            base model, in PEFT itself: switching the adapter off does not bring the old ones back.
        revision: of a base on the hub.
    """
    from peft import LoraConfig  # noqa: PLC0415 - peft takes seconds, and only an export needs it

    common_rank = Counter(f.rank for f in factors.values()).most_common(1)[0][0]
    alphas = {name: f.scale * f.rank for name, f in factors.items()}  # PEFT scales by alpha / r
    common_alpha = next(alphas[name] for name, f in factors.items() if f.rank == common_rank)
    config = LoraConfig(
        r=common_rank,
        lora_alpha=cast("int", common_alpha),  # PEFT computes with fractions, too
        target_modules=list(factors),
        rank_pattern={name: f.rank for name, f in factors.items() if f.rank != common_rank},
        alpha_pattern={name: alpha for name, alpha in alphas.items() if alpha != common_alpha},
        use_dora=any(f.magnitude is not None for f in factors.values()),
        modules_to_save=list(head) or None,
        bias="all" if biases else "none",
        task_type=TASK_TYPES.get(kind),
        base_model_name_or_path=base,
        revision=revision,
        inference_mode=True,
    )
    folder.mkdir(parents=True, exist_ok=True)
    config.save_pretrained(str(folder))
    tensors = {}
    for name, f in factors.items():
        tensors[f"{PREFIX}{name}.lora_A.weight"] = f.A.float().contiguous()
        tensors[f"{PREFIX}{name}.lora_B.weight"] = f.scaled_B().float().contiguous()
        if f.magnitude is not None:
            tensors[f"{PREFIX}{name}.lora_magnitude_vector"] = f.magnitude.float().contiguous()
    for name in head:
        for key, value in module.get_submodule(name).state_dict().items():
            tensors[f"{PREFIX}{name}.{key}"] = value.detach().cpu().contiguous()
    for name, value in (biases or {}).items():
        layer = name.removesuffix(".bias")
        if layer not in head:  # PEFT wraps adapted layers
            wrapped = f"{layer}.base_layer.bias" if layer in factors else name
            tensors[f"{PREFIX}{wrapped}"] = value.detach().float().cpu().contiguous()
    save_file(tensors, folder / "adapter_model.safetensors")
