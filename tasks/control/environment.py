"""One Meta-World environment: seeded whole, a new start and goal for every seed, reward version named."""

from __future__ import annotations

import copy
from functools import cache
from importlib import metadata
from typing import Any

import numpy as np

from eva_bench.system.errors import UserError, did_you_mean

STEPS = 200  # of an episode (EVA, arXiv:2410.07170v5, appendix E: 2M transitions are 10,000 episodes)
REWARD_VERSION = "v2"  # of Meta-World's two reward functions
STATE_SIZE, ACTION_SIZE = 39, 4

# The continual-world tasks that are fine-tuned on, each by itself; the other 40 of the 50 are for pretraining.
CW10 = (
    "hammer",
    "push-wall",
    "faucet-close",
    "push-back",
    "stick-pull",
    "handle-press-side",
    "push",
    "shelf-place",
    "window-close",
    "peg-unplug-side",
)


def versions() -> dict[str, str]:
    """What a trajectory depends on besides its seed; rewards differ between releases of Meta-World."""
    packages = {name: metadata.version(name) for name in ("metaworld", "mujoco", "gymnasium")}
    return packages | {"environment": "v3", "reward": REWARD_VERSION}


@cache
def task_names() -> tuple[str, ...]:
    """Meta-World's 50 tasks without the version suffix, in its order."""
    return tuple(name.removesuffix("-v3") for name in _metaworld().ALL_V3_ENVIRONMENTS)


class Environment:
    """An environment of one task, its goal part of the observation.

    Args:
        name: as in `task_names()`.
        picture: height and width in pixels, if frames are to be rendered.

    Raises:
        UserError: unknown name, or the simulator does not start.
    """

    def __init__(self, name: str, picture: int | None = None):
        if name not in task_names():
            raise UserError(f"Meta-World has no task '{name}'.{did_you_mean(name, task_names())}")
        view = {"render_mode": "rgb_array", "camera_name": "corner2"}
        options = view | {"width": picture, "height": picture} if picture else {}
        try:
            env = _seeded_class(name)(reward_function_version=REWARD_VERSION, **options)
        except Exception as error:
            raise UserError(f"The environment of '{name}' cannot be created: {error}") from error
        env._partially_observable = False
        del env.sawyer_observation_space  # computed again, with the goal
        env._freeze_rand_vec = False  # Meta-World freezes start and goal unless told otherwise,
        env.seeded_rand_vec = True  # and draws them from the global generator unless told otherwise
        env._set_task_called = True
        self.env = env

    def reset(self, seed: int) -> np.ndarray:
        """First observation (39,) of the episode of this seed; nothing of an episode before it remains."""
        self.env.seed(seed)
        return self.env.reset()[0]

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool]:
        """Observation (39,), reward and success after an action (4,) within [-1, 1]."""
        observation, reward, _, _, info = self.env.step(np.clip(action, -1, 1))
        return observation, float(reward), bool(info["success"])

    def frame(self) -> np.ndarray:
        """A picture of the scene, (height, width, 3) bytes."""
        return self.env.render()[::-1]  # Meta-World's corner cameras stand on their heads

    def close(self) -> None:
        """Give the renderer back."""
        self.env.close()


def _metaworld():
    try:
        import metaworld  # noqa: PLC0415 - it takes a second and planning a suite needs the names of tasks only
    except Exception as error:
        raise UserError(f"Meta-World cannot be loaded: {error}") from error
    return metaworld


@cache
def _seeded_class(name: str) -> type:
    base = _metaworld().ALL_V3_ENVIRONMENTS[f"{name}-v3"]
    return type(base.__name__, (_Quick, base), {})


@cache
def _compiled(path: str) -> Any:
    import mujoco  # noqa: PLC0415 - as metaworld

    return mujoco.MjModel.from_xml_path(path)


class _Quick:
    """The same environment in less time: the scene is compiled once, contacts are searched by numpy."""

    def _initialize_simulation(self):
        import mujoco  # noqa: PLC0415 - as metaworld

        if self.render_mode is not None:  # needs a buffer of its own size
            return super()._initialize_simulation()
        model = copy.copy(_compiled(self.fullpath))  # a reset moves bodies of the model
        return model, mujoco.MjData(model)

    def touching_object(self, object_geom_id: int) -> bool:
        contact, force = self.data.contact, self.data.efc_force
        touched = (contact.geom == object_geom_id).any(1)
        pads = (self.data.geom(name).id for name in ("leftpad_geom", "rightpad_geom"))
        return all(force[contact.efc_address[touched & (contact.geom == pad).any(1)]].sum() > 0 for pad in pads)
