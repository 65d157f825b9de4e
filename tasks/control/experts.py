"""Scripted experts: Meta-World's own policies, made to end their 200 steps in success.

Meta-World's policies are written for episodes that end at the first success. Over 200 steps most of them undo what
they have reached, so ours hold still while the task is solved. Four reach the goal rarely or go past it; for these
there are policies of ours.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np

from tasks.control.environment import STEPS, Environment

warnings.filterwarnings("ignore", message="Constant.s. may be too high")  # our actions are clipped

Policy = Callable[[np.ndarray], np.ndarray]  # observation (39,) -> action (4,), perhaps beyond [-1, 1]


def policy(name: str) -> Policy:
    """The scripted policy of a task."""
    from metaworld.policies import ENV_POLICY_MAP  # noqa: PLC0415 - asin environment.py

    scripted = ENV_POLICY_MAP[f"{name}-v3"]().get_action
    ours = {
        "push-back": _push_back,
        "handle-press": _press_handle,
        "handle-press-side": _press_handle,
        "stick-pull": _stick_pull(scripted),
    }
    return ours.get(name, scripted)


def demonstrate(environment: Environment, act: Policy, seed: int, noise: float = 0.0) -> dict:
    """One episode of an expert.

    Args:
        environment: where it acts.
        act: from an observation to an action.
        seed: of start, goal and noise.
        noise: standard deviation of a Gaussian disturbance of the three position components of each action. It acts on
            what is done, not on what is recorded: the actions are the ones the expert wants, also in states that it
            would not reach by itself (Laskey et al., arXiv:1703.09327).

    Returns:
        observations (200, 39), actions (200, 4) and rewards (200,) in float32; success at the last step and at any;
        the seed.
    """
    generator = np.random.default_rng(seed)
    observation, success = environment.reset(seed), False
    observations, actions, rewards, successes = [], [], [], []
    for _ in range(STEPS):
        action = np.clip(np.array(act(observation), dtype=np.float32), -1, 1)
        if success:
            action[:3] = 0.0  # hold still, the gripper as it is
        observations.append(observation)
        actions.append(action)
        disturbance = np.append(noise * generator.standard_normal(3), 0.0)
        observation, reward, success = environment.step(action + disturbance)
        rewards.append(reward)
        successes.append(success)
    return {
        "seed": seed,
        "observations": np.array(observations, dtype=np.float32),
        "actions": np.array(actions, dtype=np.float32),
        "rewards": np.array(rewards, dtype=np.float32),
        "success": successes[-1],
        "success_any": any(successes),
    }


def _towards(hand: np.ndarray, goal: np.ndarray, grip: float, above: float = 0.0) -> np.ndarray:
    """Move to `above` metres over the goal."""
    return np.append(10.0 * (goal + np.array([0, 0, above]) - hand), grip)


def _push_back(observation: np.ndarray) -> np.ndarray:
    """Above the puck, down, close the fingers, and only then to the goal (Meta-World's moves off with open fingers)."""
    hand, opening, puck, goal = observation[:3], observation[3], observation[4:7], observation[36:39]
    if np.linalg.norm(hand[:2] - puck[:2]) > 0.04:
        return _towards(hand, puck, 0.0, above=0.2)
    if hand[2] - puck[2] > 0.05:
        return _towards(hand, puck, 0.0, above=0.03)
    if opening > 0.73:
        return _towards(hand, puck, 0.9, above=0.03)
    return _towards(hand, goal, 0.9, above=hand[2])


def _press_handle(observation: np.ndarray) -> np.ndarray:
    """Above the handle, then down as far as the goal (Meta-World's presses through it)."""
    hand, handle, goal = observation[:3], observation[4:7], observation[36:39]
    if np.linalg.norm(hand[:2] - handle[:2]) > 0.02:
        return _towards(hand, handle, 1.0, above=0.2)
    return _towards(hand, np.append(handle[:2], goal[2] + 0.04), 1.0)


def _stick_pull(scripted: Policy) -> Policy:
    """Meta-World's policy until the stick is in the handle; then the hand moves as the thermos still has to."""

    def act(observation: np.ndarray) -> np.ndarray:
        hand, stick, handle, goal = observation[:3], observation[4:7], observation[11:14], observation[36:39]
        if abs(stick[0] - handle[0]) > 0.04:
            return scripted(observation)
        way = np.append(goal[:2] - handle[:2], handle[2] - stick[2] - 0.02)
        return _towards(hand, hand + way, 0.7)

    return act
