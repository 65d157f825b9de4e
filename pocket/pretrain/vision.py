"""Pretrain the pocket vision transformer on generated scenes: `python -m pocket.pretrain.vision`.

Everything is fixed by the seed: the same command on the same kind of machine gives the same images and, up to the order
of floating-point sums, the same weights. The manifest records command, data and checksums.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path

import timm
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from eva_bench.system.paths import POCKET_WEIGHTS
from pocket.pretrain import manifest
from pocket.world.image_scenes import PIXELS
from pocket.world.scene_factors import CELL, GROUNDS, HUES, PATCH, SHAPES, Factors, draw

FOLDER = POCKET_WEIGHTS / "vision"
ARCHITECTURE = "vit_tiny_patch16_224"
SHAPE = {"img_size": PIXELS, "patch_size": PATCH, "embed_dim": 96, "depth": 4, "num_heads": 4}
SCENES, HELD_OUT = 60_000, 2_000
STATISTICS = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "interpolation": "bicubic"}


class Student(nn.Module):
    """The transformer with the heads that pretraining needs and throws away."""

    def __init__(self):
        super().__init__()
        self.vit = timm.create_model(ARCHITECTURE, num_classes=0, global_pool="token", **SHAPE)
        width = SHAPE["embed_dim"]
        self.present = nn.Linear(width, len(SHAPES) + HUES)
        self.ground = nn.Linear(width, len(GROUNDS))
        self.share = nn.Linear(width, 1)
        self.covered = nn.Linear(width, (PATCH // CELL) ** 2)

    def loss(self, images: Tensor, present: Tensor, ground: Tensor, covered: Tensor) -> Tensor:
        """Sum of what is asked; images uint8 (n, 3, pixels, pixels), covered (n, rows, columns) of cells."""
        tokens = self.vit.forward_features(normalised(images))  # (n, 1 + patches, width)
        whole, patches = tokens[:, 0], tokens[:, 1:]
        cells = F.pixel_unshuffle(covered[:, None], PATCH // CELL).flatten(2).mT  # (n, patches, cells of a patch)
        return (
            F.binary_cross_entropy_with_logits(self.present(whole), present) * 6
            + F.cross_entropy(self.ground(whole), ground)
            + F.mse_loss(self.share(whole)[:, 0], covered.mean((1, 2))) * 4
            + F.binary_cross_entropy_with_logits(self.covered(patches), cells) * 3
        )


def tensors(factors: Factors) -> tuple[Tensor, ...]:
    """What the student's loss takes."""
    images = torch.from_numpy(factors.images).permute(0, 3, 1, 2).contiguous()
    return (
        images,
        torch.from_numpy(factors.present).float(),
        torch.from_numpy(factors.ground),
        torch.from_numpy(factors.covered),
    )


def normalised(images: Tensor) -> Tensor:
    """Pixels 0 to 255 as -1 to 1."""
    return images.float() / 127.5 - 1


def mirrored(batch: tuple[Tensor, ...], generator: torch.Generator) -> tuple[Tensor, ...]:
    """The batch with both its axes possibly turned round: what is asked moves along or does not change."""
    images, present, ground, covered = batch
    axes = [axis for axis in (-1, -2) if torch.rand((), generator=generator) < 0.5]
    return images.flip(axes), present, ground, covered.flip(axes)


def train(minutes: float, batch_size: int, lr: float, epochs: int, seed: int) -> tuple[Student, dict]:
    """Train for whole epochs, or until the minutes are over; the schedule follows whichever is further."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    seen, unseen = draw(SCENES, stream=0), tensors(draw(HELD_OUT, stream=1))
    data = tensors(seen)
    student = Student()
    optimizer = torch.optim.AdamW(student.parameters(), lr=lr, weight_decay=0.05, fused=True)
    total, started = epochs * SCENES // batch_size, time.process_time()
    step, done, loss = 0, 0.0, torch.zeros(())
    while done < 1:
        for rows in torch.randperm(SCENES, generator=generator).split(batch_size):
            done = max(step / total, (time.process_time() - started) / 60 / minutes)
            if done >= 1:
                break
            factor = min(1.0, (step + 1) / 200) * 0.5 * (1 + math.cos(math.pi * done))
            for group in optimizer.param_groups:
                group["lr"] = lr * factor
            loss = student.loss(*mirrored(tuple(part[rows] for part in data), generator))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(student.parameters(), 1.0)
            optimizer.step()
            step += 1
            if step % 500 == 0:
                print(
                    f"step {step} of {total}: loss {loss.item():.3f}, held out {held_out(student, unseen)}", flush=True
                )
    facts = {
        "steps": step,
        "batch_images": batch_size,
        "scenes": SCENES,
        "seed": seed,
        "final_loss": round(loss.item(), 4),
    }
    return student, facts | held_out(student, unseen) | {"scenes_sha256": seen.checksum()}


@torch.no_grad()
def held_out(student: Student, unseen: tuple[Tensor, ...]) -> dict[str, float]:
    """Loss and accuracies on scenes that were not trained on."""
    student.eval()
    whole = student.vit(normalised(unseen[0]))
    facts = {
        "held_out_loss": student.loss(*unseen),
        "held_out_presence": ((student.present(whole) > 0) == unseen[1].bool()).float().mean(),
        "held_out_ground": (student.ground(whole).argmax(1) == unseen[2]).float().mean(),
    }
    student.train()
    return {name: round(value.item(), 4) for name, value in facts.items()}


def write(student: Student, command: str, facts: dict, folder: Path) -> None:
    """Write a folder as timm's hub models are (config.json, model.safetensors) and the manifest."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file(
        {name: value.contiguous() for name, value in student.vit.state_dict().items()}, folder / "model.safetensors"
    )
    config = {
        "architecture": ARCHITECTURE,
        "num_classes": 0,
        "num_features": SHAPE["embed_dim"],
        "global_pool": "token",
        "model_args": SHAPE,
        "pretrained_cfg": STATISTICS | {"input_size": [3, PIXELS, PIXELS], "num_classes": 0},
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    facts = {
        "command": command,
        "data": "generated by pocket/world/scene_factors.py, stream 0",
        **facts,
        "parameters": sum(p.numel() for p in student.vit.parameters()),
        "versions": manifest.versions("torch", "timm"),
    }
    manifest.write(folder, facts)


def main() -> None:
    """Pretrain the model and write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=9)
    parser.add_argument("--minutes", type=float, default=math.inf, help="of computing time: stop there even before")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=0, help="of the initial weights and the order of the scenes")
    parser.add_argument("--out", type=Path, default=FOLDER)
    arguments = parser.parse_args()
    student, facts = train(arguments.minutes, arguments.batch, arguments.lr, arguments.epochs, arguments.seed)
    command = manifest.command("pocket.pretrain.vision", arguments, "epochs", "minutes", "batch", "lr", "seed")
    write(student, command, facts, arguments.out)


if __name__ == "__main__":
    main()
