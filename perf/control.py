"""What control costs: the expert's transitions, evaluation in batches and one environment at a time, a whole run."""

from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from statistics import median

import numpy as np
import pytest
import torch

from eva_bench import models
from eva_bench.settings.compose import compose_spec
from perf import page, process
from pocket.datasets import metaworld
from tasks.control.environment import CW10, STEPS, Environment
from tasks.control.experts import demonstrate, policy
from tasks.control.rollout import play, side_by_side
from tasks.metaworld import Player, one_thread

EPISODES = 24
TASKS = ("window-close", "push", "stick-pull")  # the cheapest, a middling and the dearest environment to step
NOTE = """
What limits evaluation: stepping the environments, which no batch makes cheaper ("of it environments"). Batches save the
model's time: one call for all episodes instead of one each. "MuJoCo alone": seconds within its C functions only, no
Python and no model, every core with its share of the same episodes (of the scripted expert) at the same time. "One at a
time" over that is the highest gain that any program could have here; "together over MuJoCo alone" is the rest.
"""
SIMULATION = ("mj_step", "mj_forward", "mj_rnePostConstraint")  # MuJoCo's functions that a step of Meta-World calls


def expert_speed(name: str) -> float:
    """Transitions a second of the scripted expert on one core."""
    environment, act = Environment(name), policy(name)
    seconds = []
    for seed in range(5):
        start = time.perf_counter()
        demonstrate(environment, act, seed, noise=0.2)
        seconds.append(time.perf_counter() - start)
    return STEPS / median(seconds)


def evaluation(name: str, together: int, workers: int) -> tuple[float, float]:
    """Seconds for EPISODES episodes, `together` at a time, and how many of them the environments took."""
    spec = compose_spec(["method=lora", f"task=metaworld/{name}", "tracking=off"])
    torch.set_num_threads(workers)
    bundle = models.load(spec.model, spec.data, "cpu")
    stepping = 0.0

    with torch.inference_mode(), one_thread(), side_by_side(name, together, workers) as environments:
        environments.reset(range(together))  # worker processes have started
        step = environments.step

        def timed(actions):
            nonlocal stepping
            start = time.perf_counter()
            result = step(actions)
            stepping += time.perf_counter() - start
            return result

        environments.step = timed
        start = time.perf_counter()
        for first in range(0, EPISODES, together):
            player = Player(bundle, np.full(together, 1500.0))
            play(environments, range(first, first + together), player.act, player.observe)
        return time.perf_counter() - start, stepping


def in_mujoco(name: str, seeds: range) -> float:
    """Seconds within MuJoCo's own functions for the expert's episodes of these seeds."""
    import mujoco

    spent = 0.0

    def timed(function):
        def call(*arguments, **options):
            nonlocal spent
            start = time.perf_counter()
            function(*arguments, **options)
            spent += time.perf_counter() - start

        return call

    environment, act = Environment(name), policy(name)
    with pytest.MonkeyPatch.context() as patch:
        for function in SIMULATION:
            patch.setattr(mujoco, function, timed(getattr(mujoco, function)))
        for seed in seeds:
            demonstrate(environment, act, seed, noise=0.0)
    return spent


def simulation(name: str, processes: int) -> float:
    """Seconds of `in_mujoco` for EPISODES episodes shared out to processes that run at the same time."""
    share = EPISODES // processes
    parts = [range(first, first + share) for first in range(0, EPISODES, share)]
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
        return max(pool.map(in_mujoco, [name] * len(parts), parts))


def whole_run() -> float:
    """Wall seconds of a fine-tuning with evaluation, started cold; demonstrations are there."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "run.py", "method=eva", "task=metaworld/push", "tracking=off"]
        command += [f"results_dir={folder}/results", f"runs_dir={folder}/runs"]
        return process.run(command).checked().seconds


def measure() -> dict[str, dict]:
    """All figures: name -> {value, unit, target}."""
    for split in ("train", "test"):
        metaworld.generate(split, "push")
    speeds = {name: round(expert_speed(name)) for name in CW10}
    figures: dict[str, dict] = {
        "expert, transitions a second on one core (median task)": page.figure(
            round(median(speeds.values())), "/s", ">= 1000", by_task=speeds
        ),
        "expert, slowest task": page.figure(min(speeds.values()), "/s", ""),
        "fine-tuning with evaluation, cold": page.figure(round(whole_run(), 1), "s", "<= 60"),
    }
    cores = len(os.sched_getaffinity(0))
    for name in TASKS:
        single, single_steps = evaluation(name, 1, 1)
        batched, batched_steps = evaluation(name, EPISODES, min(2, cores))
        alone = simulation(name, min(2, cores))
        title = f"{name}: {EPISODES} episodes"
        figures |= {
            f"{title}, one at a time": page.figure(round(single, 2), "s", ""),
            f"{title}, of it environments": page.figure(round(single_steps, 2), "s", ""),
            f"{title}, together": page.figure(round(batched, 2), "s", ""),
            f"{title}, together, of it environments": page.figure(round(batched_steps, 2), "s", ""),
            f"{title}, MuJoCo alone on all cores": page.figure(round(alone, 2), "s", ""),
            f"{title}, together over MuJoCo alone": page.figure(round(batched / alone, 2), "x", ""),
            f"{title}, gain": page.figure(round(single / batched, 2), "x", ">= 3, or the note"),
        }
    return figures


def main() -> None:
    """Measure, write results/bench/control.{json,md}, print the table."""
    page.write("control", "What control costs", measure(), NOTE)


if __name__ == "__main__":
    main()
