"""Trajectories cut into windows of a few time steps, made when they are asked for."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate

import numpy as np


class Windows(Sequence):
    """Every `stride`-th step of every trajectory starts a window; at the end of a trajectory windows are shorter.

    Args:
        rows: trajectories with observations (t, s), actions (t, a) and rewards (t,); may be memory-mapped.
        context: steps of a window.
        reward_scale: rewards and returns are divided by it.
    """

    def __init__(self, rows: Sequence[dict], context: int, reward_scale: float, stride: int = 1):
        self.rows, self.context, self.reward_scale, self.stride = rows, context, reward_scale, stride
        self.ends = list(accumulate(-(-len(row["rewards"]) // stride) for row in rows))
        self._returns = lru_cache(maxsize=1024)(self._returns_to_go)

    def __len__(self) -> int:
        return self.ends[-1]

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        """states, returns, actions, rewards and steps of a window; a return is the sum of the rewards to come."""
        trajectory = bisect_right(self.ends, index)
        row = self.rows[trajectory]
        first = (index - (self.ends[trajectory - 1] if trajectory else 0)) * self.stride
        part = slice(first, min(first + self.context, len(row["rewards"])))
        return {
            "states": row["observations"][part],
            "returns": self._returns(trajectory)[part],
            "actions": row["actions"][part],
            "rewards": row["rewards"][part] / np.float32(self.reward_scale),
            "steps": np.arange(part.start, part.stop),
        }

    def _returns_to_go(self, trajectory: int) -> np.ndarray:
        rewards = np.asarray(self.rows[trajectory]["rewards"], dtype=np.float64)
        return (rewards[::-1].cumsum()[::-1] / self.reward_scale).astype(np.float32)
