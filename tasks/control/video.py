"""One episode as an animation, rendered without a screen."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from PIL import Image

from eva_bench.system.errors import UserError
from tasks.control.environment import Environment
from tasks.control.rollout import Environments, play

PICTURE = 240  # pixels
EVERY = 4  # steps between two frames
FRAME_MS = 50


def record(name: str, seed: int, player, file: Path) -> str | None:
    """Play the episode of this seed and write it as a GIF; what is missing, in a sentence, if that cannot be."""
    frames = []

    class Filmed(Environments):
        def __init__(self):
            self.environments = [Environment(name, picture=PICTURE)]

        def step(self, actions):
            if len(frames) * EVERY <= player.step:
                frames.append(Image.fromarray(self.environments[0].frame()))
            return super().step(actions)

    os.environ.setdefault("MUJOCO_GL", "egl")  # read when mujoco renders for the first time
    try:
        with torch.inference_mode():
            filmed = Filmed()
            play(filmed, [seed], player.act, player.observe)
            filmed.environments[0].close()
    except UserError:
        raise
    except Exception as error:  # its text can be unreadable: some of OpenGL's errors cannot be printed
        return (
            f"rendering with MUJOCO_GL={os.environ['MUJOCO_GL']} failed ({type(error).__name__}); software rendering "
            "needs libEGL and Mesa (Debian: libegl1 libgl1-mesa-dri), or MUJOCO_GL=osmesa and libosmesa6."
        )
    frames[0].save(file, save_all=True, append_images=frames[1:], duration=FRAME_MS, loop=0)
    return None
