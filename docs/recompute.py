"""Every pair of methods of the benchmark, from its records alone: `python docs/recompute.py [results]`.

The mixed model of balanced data is an analysis of variance; all it takes is mean squares. Prints two methods, the
difference in points, its 95 % interval, the verdict. For complete data: every method with the same seeds of every task.
"""

import itertools
import json
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import yaml
from scipy import special, stats

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "results"
TABLES = {path.stem: yaml.safe_load(path.read_text()) for path in (ROOT / "conf/table").glob("*.yaml")}
METHODS = TABLES["overall"]["methods"]
CELL = {"method", "task", "scale", "seed", "stage"}  # overrides that choose a run; other settings make it an experiment


def points(x):
    return (special.expit(x) - 0.01) / 0.98  # scores are drawn in by 0.01 at both ends before they become logits


def part(y, shared, back=points):
    """First method minus second, its variance, the variance of that; y: logits of methods x tasks x seeds."""
    m, t, n = y.shape
    method, cell, training = y.mean((1, 2), keepdims=True), y.mean(2, keepdims=True), y.mean(1, keepdims=True)
    crossed = cell - method - y.mean((0, 2), keepdims=True) + y.mean()
    squares = [(n * np.sum(crossed**2), (m - 1) * (t - 1), 1)] if t > 1 else [(np.sum((y - cell) ** 2), m * (n - 1), 1)]
    if shared and t > 1:  # the tasks of a seed are scores of one training
        squares.append((t * np.sum((training - method) ** 2), m * (n - 1), 1))
        squares.append((np.sum((y - cell - training + method) ** 2), m * (t - 1) * (n - 1), -1))
    terms = [(sign * square / freedom, freedom) for square, freedom, sign in squares]
    ours, theirs = (y.mean((0, 2)) - y.mean() + y[i].mean() for i in (0, 1))
    scale = 2 / (n * t) * np.mean([(back(x + 1e-5) - back(x - 1e-5)) / 2e-5 for x in (ours, theirs)]) ** 2
    uncertainty = scale**2 * sum(2 * square**2 / freedom for square, freedom in terms)
    return np.mean(back(ours) - back(theirs)), scale * sum(square for square, _ in terms), uncertainty


def interval(parts, level=0.95):
    """Difference, low and high; mean over families."""
    estimate, variance, uncertainty = (sum(p[k] for p in parts) / len(parts) ** (1, 2, 4)[k] for k in range(3))
    half = stats.t.ppf((1 + level) / 2, 2 * variance**2 / uncertainty) * variance**0.5
    return estimate, estimate - half, estimate + half


def tells(y, before, ceiling):
    """Whether a task tells methods apart: reliability 0.8, not all at the floor or ceiling; y: methods x seeds."""
    away = before + 0.02 < y.mean(1).max() and y.mean(1).min() < ceiling - 0.02
    return away and y.var(1, ddof=1).mean() / y.shape[1] <= 0.2 * y.mean(1).var(ddof=1)


def main():
    runs, families = defaultdict(dict), defaultdict(list)
    for run in (json.loads(path.read_text()) for path in sorted((RESULTS / "records/pocket").rglob("*.json"))):
        spec, given = run["spec"], {override.partition("=")[0] for override in run["origins"]["command_line"]} - CELL
        plain = not any(key.split(".")[0] in spec for key in given)
        if plain and (spec["stage"], run["status"]) == ("final", "ok") and spec["method"]["name"] in METHODS:
            runs[spec["protocol"], spec["task"]["name"]][spec["method"]["name"], spec["seed"]] = run
    tasks = {name for _, name in runs}
    full = {p for p, _ in runs if all({m for m, _ in runs.get((p, name), ())} == {*METHODS} for name in tasks)}
    for column in (column for name in TABLES["overall"]["columns_of"] for column in TABLES[name]["columns"]):
        found = runs[max(full), column["task"]]
        seeds, task = sorted({seed for _, seed in found}), next(iter(found.values()))["spec"]["task"]
        metric = column.get("metric") or task["primary"]
        y = np.array([[found[m, s]["metrics"][metric] for s in seeds] for m in METHODS])
        one = [found[METHODS[0], seed] for seed in seeds]  # what says nothing of the method is in every run
        before = np.mean([run["metrics_before"].get(metric, 0) for run in one])
        constant = np.mean([run["metrics"].get("/".join([*metric.split("/")[:-1], "majority"]), 0) for run in one])
        if tells(y, max(before, constant), np.mean([run["metrics"].get(f"expert_{metric}", 1) for run in one])):
            families[task["family"]].append((y, [run["train_id"] for run in one]))
    for pair in itertools.combinations(METHODS, 2):
        order = [METHODS.index(m) for m in pair] + [i for i, m in enumerate(METHODS) if m not in pair]
        parts = []
        for group in families.values():
            y = special.logit(0.01 + 0.98 * np.clip([y[order] for y, _ in group], 0, 1)).swapaxes(0, 1)
            parts.append(part(y, len({t for _, trainings in group for t in trainings}) < y.shape[1] * y.shape[2]))
        estimate, low, high = interval(parts)
        verdict = "equivalent" if max(-low, high) <= 0.02 else "different" if low * high > 0 else "undecided"
        print(*pair, *(f"{100 * value:+.1f}" for value in (estimate, low, high)), verdict)


if __name__ == "__main__":
    main()
