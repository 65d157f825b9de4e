"""Episodes of several environments side by side, in this process or spread over worker processes."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from tasks.control.environment import STEPS, Environment

Step = tuple[np.ndarray, np.ndarray, np.ndarray]  # observations (n, 39), rewards (n,), successes (n,)


class Environments:
    """`count` environments of one task, stepped one after the other in this process.

    With fewer seeds or actions than environments the last ones rest.
    """

    def __init__(self, name: str, count: int):
        self.environments = [Environment(name) for _ in range(count)]

    def reset(self, seeds: Sequence[int]) -> np.ndarray:
        """First observations (n, 39)."""
        return np.array([e.reset(seed) for e, seed in zip(self.environments, seeds, strict=False)])

    def step(self, actions: np.ndarray) -> Step:
        """Observations, rewards and successes after actions (n, 4)."""
        results = [e.step(action) for e, action in zip(self.environments, actions, strict=False)]
        observations, rewards, successes = zip(*results, strict=True)
        return np.array(observations), np.array(rewards), np.array(successes)


class Workers:
    """The same, the environments dealt out in consecutive shares to worker processes that step at the same time."""

    def __init__(self, name: str, count: int, workers: int):
        context = multiprocessing.get_context("spawn")  # a fork would copy torch's threads in an unknown state
        self.borders = np.linspace(0, count, workers + 1).astype(int)
        self.pipes, self.processes = [], []
        for first, last in self._shares():
            ours, theirs = context.Pipe()
            self.pipes.append(ours)
            self.processes.append(context.Process(target=_serve, args=(theirs, name, last - first), daemon=True))
            self.processes[-1].start()
            theirs.close()

    def reset(self, seeds: Sequence[int]) -> np.ndarray:
        """First observations (n, 39)."""
        return np.concatenate(self._ask("reset", seeds))

    def step(self, actions: np.ndarray) -> Step:
        """Observations, rewards and successes after actions (n, 4)."""
        return tuple(np.concatenate(parts) for parts in zip(*self._ask("step", actions), strict=True))

    def close(self) -> None:
        """End the worker processes."""
        for pipe in self.pipes:
            pipe.close()  # a worker ends when nobody listens
        for process in self.processes:
            process.join()

    def _shares(self) -> Iterator[tuple[int, int]]:
        return zip(self.borders[:-1], self.borders[1:], strict=True)

    def _ask(self, what: str, values: Sequence) -> list:
        shares = zip(self.pipes, self._shares(), strict=True)
        asked = [(pipe, values[first:last]) for pipe, (first, last) in shares if first < len(values)]
        for pipe, part in asked:
            pipe.send((what, part))
        return [pipe.recv() for pipe, _ in asked]


def _serve(pipe, name: str, count: int) -> None:
    environments = Environments(name, count)
    while True:
        try:
            what, values = pipe.recv()
        except (EOFError, KeyboardInterrupt):
            return
        pipe.send(getattr(environments, what)(values))


@contextmanager
def side_by_side(name: str, count: int, workers: int) -> Iterator[Environments | Workers]:
    """`count` environments of a task; in worker processes if there is more than one."""
    workers = min(workers, count)
    if workers < 2:
        yield Environments(name, count)
        return
    Environment(name)  # raises here, in plain words, what would end a worker without any
    pool = Workers(name, count, workers)
    try:
        yield pool
    finally:
        pool.close()


def play(
    environments: Environments | Workers, seeds: Sequence[int], act: Callable, observe: Callable
) -> dict[str, np.ndarray]:
    """One episode per seed, all at the same step.

    Args:
        environments: as many as there are seeds.
        seeds: of the episodes.
        act: observations (n, 39) to actions (n, 4), called at every step.
        observe: told the rewards (n,) of every step.

    Returns:
        success at the last step, success at any step and return, each (n,).
    """
    observations = environments.reset(seeds)
    ever, total = np.zeros(len(seeds), dtype=bool), np.zeros(len(seeds))
    for _ in range(STEPS):
        observations, rewards, successes = environments.step(act(observations))
        observe(rewards)
        ever, total = ever | successes, total + rewards
    return {"success": successes, "success_any": ever, "return": total}
