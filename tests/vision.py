"""Small vision transformers in the layout of timm's hub models, one for each vision model of conf/model/."""

from __future__ import annotations

import json
from pathlib import Path

import timm
import torch
from safetensors.torch import save_file

from eva_bench.models import vision
from eva_bench.models.bundle import ModelBundle
from tests.settings import data_settings, model_settings

PIXELS, CLASSES = 42, 5
ARCHITECTURES = {  # name in conf/model/: timm's architecture and how it is made small
    "dinov2_g14": ("vit_giant_patch14_dinov2", {"embed_dim": 48, "depth": 2, "num_heads": 3}),
    "dinov2_l14": ("vit_large_patch14_dinov2", {"embed_dim": 32, "depth": 3, "num_heads": 2}),
    "dinov2_s14": ("vit_small_patch14_dinov2", {"embed_dim": 32, "depth": 2, "num_heads": 4}),
}


def write_vit(name: str, folder: Path) -> Path:
    """A random checkpoint whose images are larger than PIXELS, as DINOv2's are; returns the folder."""
    architecture, shape = ARCHITECTURES[name]
    torch.manual_seed(0)
    module = timm.create_model(architecture, num_classes=0, img_size=70, **shape)
    with torch.no_grad():
        for parameter_name, parameter in module.named_parameters():
            if not parameter_name.endswith("norm1.weight") and not parameter_name.endswith("norm2.weight"):
                parameter.normal_(0.4 if parameter_name.endswith("gamma") else 0.0, 0.15)
    folder.mkdir(parents=True)
    save_file(module.state_dict(), folder / "model.safetensors")
    config = {
        "architecture": architecture, "num_classes": 0, "model_args": shape,
        "pretrained_cfg": {"input_size": [3, 70, 70], "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]},
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def load_vit(name: str, folder: Path | None, outputs: int = CLASSES) -> ModelBundle:
    """The bundle of a small checkpoint, or of the pocket model where folder is None."""
    if folder is None:
        return vision.load(model_settings("pocket_vision", "pocket:vision"), data_settings(), "cpu", outputs)
    return vision.load(model_settings(name, folder), data_settings(image_size=PIXELS), "cpu", outputs)


def some_pixels(bundle: ModelBundle, n: int = 3) -> torch.Tensor:
    """Random input for a bundle's model, (n, 3, size, size)."""
    size = bundle.processor.image_size
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(2))
