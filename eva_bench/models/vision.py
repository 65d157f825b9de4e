"""Vision transformers of timm as bundles: fused projections split, a linear head on the class token, biases trained.

timm computes q, k and v with one matrix, and DINOv2-giant both halves of its SwiGLU with another. An adapter on a
fused matrix would share its A between parts that other methods and models adapt apart. So each is split into one
linear layer per part, whose outputs are put together again: the function stays the same, and every method adapts the
same matrices. The exported adapter belongs to the split model; `fused_state_dict` and `merge` lead back to timm's
own layout. See docs/tasks/vtab1k.md.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from timm.models.vision_transformer import checkpoint_filter_fn
from torch import Tensor, nn

from eva_bench.assets.identity import model_folder
from eva_bench.models import checkpoint
from eva_bench.models.bundle import ModelBundle
from eva_bench.models.linear import find_targets
from eva_bench.settings.schema import DataSettings, ModelSettings
from eva_bench.system.errors import UserError

HEAD = "head"
HEAD_STD = 2e-5  # of its truncated normal start: EVA, appendix D.3, and the authors' vtab1k-pytorch
# Fused layers by the end of their name and the parts that their output rows consist of, in order.
PARTS = {"attn.qkv": ("q", "k", "v"), "mlp.fc1": ("gate", "value")}
NORMALISATIONS = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
}


@dataclass(frozen=True)
class Processor:
    """What belongs to a model beside its weights.

    Attributes:
        image_size: of its input, in pixels.
        mean, std: of the three colours (0-1), which are brought to 0 and 1.
        config: content of timm's config.json.
    """

    image_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    config: dict[str, Any]

    def normalise(self, pixels: Tensor) -> Tensor:
        """The model's input, float32, from uint8 (n, 3, size, size)."""
        mean, std = (pixels.new_tensor(v, dtype=torch.float32).view(3, 1, 1) for v in (self.mean, self.std))
        return (pixels.float() / 255 - mean) / std


class SplitLinear(nn.Module):
    """A fused linear layer as one layer per part; their outputs stand in the fused order.

    Args:
        fused: weight (parts * out, in).
        parts: names of the parts, which become the names of the layers.
    """

    def __init__(self, fused: nn.Linear, parts: tuple[str, ...]) -> None:
        super().__init__()
        self.parts = parts
        rows = fused.out_features // len(parts)
        for index, part in enumerate(parts):
            layer = nn.Linear(fused.in_features, rows, bias=fused.bias is not None, device="meta")
            own = slice(index * rows, (index + 1) * rows)
            layer.weight = nn.Parameter(fused.weight.detach()[own].clone())
            if fused.bias is not None:
                layer.bias = nn.Parameter(fused.bias.detach()[own].clone())
            self.add_module(part, layer)

    def forward(self, x: Tensor) -> Tensor:
        """The fused layer's output, (..., parts * out), of inputs (..., in)."""
        return torch.cat([getattr(self, part)(x) for part in self.parts], dim=-1)


def split_fused(module: nn.Module) -> nn.Module:
    """Replace the fused layers of a timm vision transformer, in place; the function is unchanged."""
    for name, layer in list(module.named_modules()):
        parts = next((parts for end, parts in PARTS.items() if name.endswith(end)), None)
        parent, _, child = name.rpartition(".")
        if parts is None or (child == "fc1" and not hasattr(module.get_submodule(parent), "gate_last")):
            continue  # an ordinary MLP has one matrix there
        setattr(module.get_submodule(parent), child, SplitLinear(layer, parts))
    return module


def fused_state_dict(module: nn.Module) -> dict[str, Tensor]:
    """The weights under timm's own names, split layers put together again."""
    state = {name: value.detach().cpu() for name, value in module.state_dict().items()}
    for name, layer in module.named_modules():
        if isinstance(layer, SplitLinear):
            for kind in ("weight", "bias"):
                found = [state.pop(f"{name}.{part}.{kind}", None) for part in layer.parts]
                if found[0] is not None:
                    state[f"{name}.{kind}"] = torch.cat(found)
    return {name: value.contiguous() for name, value in state.items()}


def load(
    model: ModelSettings,
    data: DataSettings,
    device: torch.device | str = "cpu",
    outputs: int | None = None,
    seed: int = 0,
) -> ModelBundle:
    """Load from a folder in the layout of timm's hub models, with a new head; see `eva_bench.models.load`.

    Learnt positions are interpolated to `data.image_size`, as timm does; where that or `data.normalisation` is None,
    they are what the checkpoint was pretrained with.

    Raises:
        UserError: broken or incomplete checkpoint, an image size that its patches do not divide, unmatched targets.
    """
    folder = model_folder(model)
    module, processor = _build(data, folder, outputs)
    try:
        files = sorted(folder.glob("*.safetensors"))
        weights = {key: value for file in files for key, value in load_file(file).items()}
        state = checkpoint_filter_fn(weights, module)
        state = {key: value for key, value in state.items() if key.partition(".")[0] != HEAD}
        missing, unexpected = module.load_state_dict(state, strict=False)
    except Exception as error:
        raise checkpoint.refusal(folder, error) from error
    checkpoint.refuse_more_layers(folder, module, set(unexpected))
    missing = [name for name in missing if name.partition(".")[0] != HEAD]
    if wrong := missing + unexpected:
        architecture = processor.config["architecture"]
        raise UserError(f"The weights of '{folder.name}' do not fit its architecture {architecture}: {wrong[0]}.")
    head = module.get_submodule(HEAD)
    nn.init.trunc_normal_(head.weight, std=HEAD_STD, generator=torch.Generator().manual_seed(seed))
    nn.init.zeros_(head.bias)
    checkpoint.refuse_infinite(folder, module)
    split_fused(module).to(getattr(torch, model.dtype)).eval().to(device)
    return _bundle(model, module, processor, checkpoint.facts(module, model) | {"image_size": processor.image_size})


def skeleton(model: ModelSettings, data: DataSettings, outputs: int | None = None) -> ModelBundle:
    """The model without weights; see `eva_bench.models.skeleton`. Checks the image size, too."""
    with torch.device("meta"):
        module, processor = _build(data, model_folder(model), outputs)
        return _bundle(model, split_fused(module), processor, {})


def save(bundle: ModelBundle, folder: Path) -> None:
    """The whole trained model in timm's own layout: `timm.create_model("local-dir:<folder>", pretrained=True)`."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file(fused_state_dict(bundle.module), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(bundle.processor.config, indent=2) + "\n")


def merge(bundle: ModelBundle, adapter: Path, folder: Path) -> None:
    """Write the model with an exported adapter merged into it, as `save` does; the bundle is used up.

    Args:
        bundle: the untouched model, as `load` gives it.
        adapter: what a run exported.
        folder: where the merged model goes.
    """
    bundle.module = PeftModel.from_pretrained(bundle.module, adapter).merge_and_unload()
    save(bundle, folder)


def _build(data: DataSettings, folder: Path, outputs: int | None) -> tuple[nn.Module, Processor]:
    """The module of the folder's configuration, with the class token as what the head reads."""
    try:
        config = json.loads((folder / "config.json").read_text())
        pretrained = config.get("pretrained_cfg", {})
        size = data.image_size or pretrained["input_size"][-1]
        arguments = config.get("model_args", {}) | {"img_size": size}
        top = {"num_classes": outputs or 0, "global_pool": "token"}
        module = timm.create_model(config["architecture"], pretrained=False, **arguments, **top)
    except Exception as error:
        raise checkpoint.refusal(folder, error) from error
    patch = module.patch_embed.patch_size[0]
    if size % patch:
        name = config["architecture"]
        raise UserError(f"data.image_size={size} is not a multiple of {patch}, the patch size of {name}.")
    config |= top | {"model_args": arguments}
    config["pretrained_cfg"] = pretrained | {"input_size": [3, size, size], "num_classes": outputs or 0}
    return module, Processor(size, *_statistics(data.normalisation, pretrained), config)


def _statistics(normalisation: str | None, pretrained: dict[str, Any]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of a named normalisation."""
    if normalisation in (None, "model"):
        return tuple(pretrained["mean"]), tuple(pretrained["std"])
    if normalisation not in NORMALISATIONS:
        raise UserError(f"data.normalisation={normalisation} is not one of {', '.join(NORMALISATIONS)}, model.")
    return NORMALISATIONS[normalisation]


def _bundle(model: ModelSettings, module: nn.Module, processor: Processor, origin: dict[str, Any]) -> ModelBundle:
    targets = find_targets(module, model.targets)
    return ModelBundle(module, processor, targets, "vision", head=(HEAD,), biases=True, origin=origin)
