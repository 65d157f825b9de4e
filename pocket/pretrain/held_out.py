"""What held-out pretraining data needs beside generators: `python -m pocket.pretrain.held_out [--model <folder>]`.

Writes `pocket/weights/held_out/`: for control, windows of new episodes of the experts of the pretraining tasks; for
vision, linear readouts of the class token, because pretraining threw its heads away. They are fitted to the pretrained
model once and then stay as they are, for every fine-tuned model. `--model` fits readouts to another pretraining and
writes them into its folder.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eva_bench.probes.pretrainings import READOUTS
from eva_bench.system.files import write_atomically
from eva_bench.system.paths import POCKET_WEIGHTS
from pocket.datasets.metaworld import NOISE, episodes
from pocket.pretrain.decision import SIZES, seen_tasks
from pocket.pretrain.vision import FOLDER as VISION
from pocket.pretrain.vision import normalised
from pocket.world.scene_factors import GROUNDS, HUES, SHAPES, draw
from tasks.control.windows import Windows

FOLDER = POCKET_WEIGHTS / "held_out"
EPISODES, STRIDE = 2, 50  # of every task; steps between the windows of an episode
SCENES, STREAM = 6000, 3  # that readouts are fitted to; the stream is not one of pretraining or of the held-out rows
DECAY = 1e-3


def windows() -> dict[str, np.ndarray]:
    """Inputs of the decision transformer and the experts' actions, each (windows, context, ...)."""
    config = SIZES["pocket"]
    rows = [row for name in seen_tasks("pocket") for row in episodes(name, "held-out", EPISODES, NOISE)]
    cut = list(Windows(rows, config.context, config.reward_scale, STRIDE))  # whole windows: STRIDE divides an episode
    return {name: np.stack([window[name] for window in cut]) for name in cut[0]}


def readouts(features: Tensor, present: Tensor, ground: Tensor) -> dict[str, np.ndarray]:
    """Weights and biases of logistic readouts, fitted with a little weight decay until nothing changes.

    Args:
        features: (n, width).
        present: (n, shapes + hues) of 0 and 1.
        ground: (n,) indices of textures.
    """
    torch.manual_seed(0)
    asked = {"present": len(SHAPES) + HUES, "ground": len(GROUNDS)}
    heads = {name: nn.Linear(features.shape[1], outputs) for name, outputs in asked.items()}
    parameters = [parameter for head in heads.values() for parameter in head.parameters()]
    optimizer = torch.optim.LBFGS(parameters, max_iter=500, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = F.binary_cross_entropy_with_logits(heads["present"](features), present)
        value = value + F.cross_entropy(heads["ground"](features), ground)
        value = value + DECAY * sum(head.weight.square().sum() for head in heads.values())
        value.backward()
        return value

    optimizer.step(loss)
    return {f"{name}.{kind}": p.detach().numpy() for name, head in heads.items() for kind, p in head.named_parameters()}


@torch.no_grad()
def scene_features(folder: Path = VISION) -> tuple[Tensor, Tensor, Tensor]:
    """Class tokens that a pretrained model gives new scenes, and what is asked about them."""
    drawn = draw(SCENES, STREAM)
    images = torch.from_numpy(drawn.images).permute(0, 3, 1, 2)
    model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    tokens = [model.forward_features(normalised(part))[:, 0] for part in images.split(200)]
    return torch.cat(tokens), torch.from_numpy(drawn.present).float(), torch.from_numpy(drawn.ground)


def write(file: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write arrays as one compressed file, whole or not at all."""

    def save(path: Path) -> None:
        with path.open("wb") as stream:  # given a path, numpy would add a suffix
            np.savez_compressed(stream, **arrays)

    write_atomically(file, save)


def main() -> None:
    """Write both files, or the readouts of another pretraining."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="folder of another pretraining of the vision transformer")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.model is not None:
        write(arguments.model / READOUTS, readouts(*scene_features(arguments.model)))
        return
    write(FOLDER / "vision.npz", readouts(*scene_features()))
    write(FOLDER / "decision.npz", windows())


if __name__ == "__main__":
    main()
