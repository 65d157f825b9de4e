"""What control costs: the expert's transitions, evaluation in batches against one environment at a time, a whole run."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from perf import page

ROOT = Path(__file__).resolve().parent.parent
EPISODES = 24
TASKS = ("window-close", "push", "stick-pull")  # the cheapest, a middling and the dearest environment to step
NOTE = """
What limits evaluation: stepping the environments, which no batch makes cheaper ("of it, environments"). It is Python around
MuJoCo, one core per worker process, so two cores step at most twice as fast as one. What batches save is the model: one call
for all episodes instead of one each. The gain is large where environments are cheap and small where contacts are many.
"""


def expert_speed(name: str) -> float:
    """Transitions a second of the scripted expert on one core."""
    from tasks.control.environment import STEPS, Environment
    from tasks.control.experts import demonstrate, policy

    environment, act = Environment(name), policy(name)
    seconds = []
    for seed in range(5):
        start = time.perf_counter()
        demonstrate(environment, act, seed, noise=0.2)
        seconds.append(time.perf_counter() - start)
    return STEPS / median(seconds)


def evaluation(name: str, together: int, workers: int) -> tuple[float, float]:
    """Seconds for EPISODES episodes, `together` at a time, and how many of them the environments took."""
    import numpy as np
    import torch

    from eva_bench import models
    from eva_bench.settings.compose import compose_spec
    from tasks.control.rollout import play, side_by_side
    from tasks.metaworld import Player

    spec = compose_spec(["method=lora", f"task=metaworld/{name}", "tracking=off"])
    torch.set_num_threads(workers)
    bundle = models.load(spec.model, spec.data, "cpu")
    stepping = 0.0

    with torch.inference_mode(), side_by_side(name, together, workers) as environments:
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


def whole_run() -> float:
    """Wall seconds of a fine-tuning with evaluation, started cold; demonstrations are there."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "run.py", "method=eva", "task=metaworld/push", "tracking=off",
                   f"results_dir={folder}/results", f"runs_dir={folder}/runs"]  # fmt: skip
        start = time.perf_counter()
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
        return time.perf_counter() - start


def measure() -> dict[str, dict]:
    """All figures: name -> {value, unit, target}."""
    from pocket.datasets import metaworld
    from tasks.control.environment import CW10

    for split in ("train", "test"):
        metaworld.generate(split, "push")
    speeds = {name: round(expert_speed(name)) for name in CW10}
    figures: dict[str, dict] = {
        "expert, transitions a second on one core (median task)": {
            "value": round(median(speeds.values())), "unit": "/s", "target": ">= 1000", "by_task": speeds,
        },
        "expert, slowest task": {"value": min(speeds.values()), "unit": "/s", "target": ""},
        "fine-tuning with evaluation, cold": {"value": round(whole_run(), 1), "unit": "s", "target": "<= 60"},
    }  # fmt: skip
    cores = len(os.sched_getaffinity(0))
    for name in TASKS:
        single, single_steps = evaluation(name, 1, 1)
        batched, batched_steps = evaluation(name, EPISODES, min(2, cores))
        title = f"{name}: {EPISODES} episodes"
        figures |= {
            f"{title}, one at a time": {"value": round(single, 2), "unit": "s", "target": ""},
            f"{title}, of it environments": {"value": round(single_steps, 2), "unit": "s", "target": ""},
            f"{title}, together": {"value": round(batched, 2), "unit": "s", "target": ""},
            f"{title}, together, of it environments": {"value": round(batched_steps, 2), "unit": "s", "target": ""},
            f"{title}, gain": {"value": round(single / batched, 2), "unit": "x", "target": ">= 3, or the note"},
        }
    return figures


def main() -> None:
    """Measure, write results/bench/control.{json,md}, print the table."""
    page.write("control", "What control costs", measure(), NOTE)


if __name__ == "__main__":
    main()
