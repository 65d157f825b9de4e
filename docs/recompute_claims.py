"""Every verdict of docs/claims.md from the records, without eva_bench: `python docs/recompute_claims.py [results]`.

The statistics are those of recompute.py; what is here says which records a claim is about. Prints claim and verdict.
"""

import itertools
import json
from collections import defaultdict

import numpy as np
import yaml
from recompute import RESULTS, ROOT, TABLES, interval, part, points
from scipy import special, stats

CELL = {"method", "task", "scale", "model", "seed", "stage", "suite"}  # overrides that choose a cell
RUNS = [json.loads(path.read_text()) for path in sorted((RESULTS / "records" / "pocket").rglob("*.json"))]


def setting(run, key):
    value = run["spec"]
    for name in key.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value


def changed(run):
    """Settings of the command line beyond the cell; where to run is not in a record's specification."""
    given = {override.split("=")[0].lstrip("+~") for override in run["origins"].get("command_line", [])}
    return {key for key in given - CELL if setting(run, key) is not None}


DONE = [r["spec"] for r in RUNS if (r["spec"]["stage"], r["status"]) == ("final", "ok") and not changed(r)]
TASKS = defaultdict(set)  # protocol, method -> tasks that have results
for spec in DONE:
    TASKS[spec["protocol"], spec["method"]["name"]].add(spec["task"]["name"])
COMPLETE = [protocol for (protocol, _), tasks in TASKS.items() if tasks == set.union(*TASKS.values())]
SHOWN = max({spec["protocol"] for spec in DONE}, key=lambda protocol: (COMPLETE.count(protocol), protocol))
CELLS = defaultdict(list)  # task, method, stage, status -> runs of the protocol with most methods that have every task
for run in (r for r in RUNS if r["spec"]["protocol"] == SHOWN):
    spec = run["spec"]
    CELLS[spec["task"]["name"], spec["method"]["name"], spec["stage"], run["status"]].append(run)
COLUMNS = [c for name in TABLES["overall"]["columns_of"] for c in TABLES[name]["columns"]]
PROBES = {}  # probe, run -> summary
PAIRS = []  # of every model with several pretrainings what matching found
for path in sorted((RESULTS / "probes").glob("*/*.json")):
    found = json.loads(path.read_text())
    PAIRS += [found["layers"]] if found["probe"] == "pretrainings" else []
    PROBES[found["probe"], "--".join(found["subjects"])] = found["summary"]
WHEN = ("metrics", "metrics_before")
PROBED = {"intruders": "intruders", "curvature": "largest", "variation": "mean_vectors"}
FAMILY = {run["spec"]["task"]["name"]: run["spec"]["task"]["family"] for run in RUNS}


def runs_of(side, task, stage, free=(), status="ok"):
    """Runs of a method and its settings that change nothing else, oldest first."""
    wanted = side.get("settings", {})
    found = [
        run
        for run in CELLS[task, side["method"], stage, status]
        if changed(run) <= {*wanted, *free} and all(setting(run, key) == value for key, value in wanted.items())
    ]
    return sorted(found, key=lambda run: run["finished"] or "")


def tried(side, task, stage):
    """Runs that differ in the learning rate, failed ones too."""
    return [r for status in ("ok", "failed") for r in runs_of(side, task, stage, ["train.lr"], status)]


def judged_by(r):
    """What a rate is judged by: logarithm of the validation loss, minus success in control; a failed run is worst."""
    if r["status"] == "failed":
        return np.inf
    if r["spec"]["model"]["kind"] == "decision":
        return -r["metrics"][r["spec"]["task"]["primary"]]
    return np.log(max(r["metrics"]["reference_loss"], 1e-9))


def at_best_rate(runs):
    """Of runs that differ in the learning rate those at the rate of the one-standard-error rule."""
    losses = defaultdict(dict)
    for r in runs:
        losses[r["spec"]["train"]["lr"]][r["spec"]["task"]["name"], r["spec"]["seed"]] = judged_by(r)
    rates = sorted(losses)
    cells = set.intersection(*(set(losses[rate]) for rate in rates)) if rates else ()
    if not cells:
        return []
    table = np.array([[losses[rate][cell] for cell in sorted(cells)] for rate in rates])
    table[np.isinf(table).any(1)] = np.inf
    best = k = int(np.argmin(table.mean(1)))
    while k and len(cells) > 1 and np.isfinite(table[k - 1]).all():
        by_task = defaultdict(list)
        for (task, _), difference in zip(sorted(cells), table[k - 1] - table[best], strict=True):
            by_task[task].append(difference)
        error = sum(np.var(d, ddof=1) / len(d) if len(d) > 1 else np.nan for d in by_task.values()) ** 0.5 / len(
            by_task
        )
        if not np.mean(table[k - 1] - table[best]) <= error:
            break
        k -= 1
    return [r for r in runs if r["spec"]["train"]["lr"] == rates[k]]


def measured(run, column, measure):
    if measure in PROBED:
        return PROBES.get((measure, run["run_id"]), {}).get(PROBED[measure])
    if measure == "learning_rate":
        return run["spec"]["train"]["lr"]
    if measure == "forgetting":
        after, before = (run[when].get("forgetting/loss") for when in WHEN)
        return np.log(after / before) if before and after and np.isfinite(after) else None
    if measure == "early_loss":
        return np.mean([point[1] for point in run["curve"] if point[0] <= run["steps"] / 4])
    return run["metrics"].get(measure or column.get("metric") or run["spec"]["task"]["primary"])


def lowest(runs, column):
    """What a failed run counts as: the lowest score of any run, or of the untouched model."""
    scores = [r[when].get(column.get("metric") or r["spec"]["task"]["primary"]) for r in runs for when in WHEN]
    return min((score for score in scores if score is not None), default=None)


def tells(column):
    """Whether a task tells methods apart: reliability, ceiling and floor (results/tables/tasks-pocket.md)."""
    cells = [runs_of({"method": method}, column["task"], "final") for method in TABLES["overall"]["methods"]]
    failed = [runs_of({"method": m}, column["task"], "final", (), "failed") for m in TABLES["overall"]["methods"]]
    worst = lowest([run for cell in cells for run in cell], column)
    scores = [[measured(run, column, None) for run in cell] for cell in cells]
    scores = [found + [worst] * len(lost) for found, lost in zip(scores, failed, strict=True)]
    if min(map(len, scores)) < 2:
        return True
    means, sizes = [np.mean(found) for found in scores], np.array([len(found) for found in scores])
    noise = sum((len(found) - 1) * np.var(found, ddof=1) for found in scores) / (sizes - 1).sum()
    metric = column.get("metric") or next(r for cell in cells for r in cell)["spec"]["task"]["primary"]
    one = {run["spec"]["seed"]: run for cell in cells for run in cell}
    before = np.mean([run["metrics_before"].get(metric, 0) for run in one.values()])
    majority = "/".join([*metric.split("/")[:-1], "majority"])
    constant = np.mean([run["metrics"].get(majority, 0) for run in one.values()])
    ceiling = np.mean([run["metrics"].get(f"expert_{metric}", 1) for run in one.values()])
    away = max(before, constant) + 0.02 < max(means) and min(means) < ceiling - 0.02
    return bool(away and noise * np.mean(1 / sizes) <= 0.2 * np.var(means, ddof=1))


def wanted(statement, among):
    """The columns of the tasks and families that a statement is about."""
    inside = [c for c in among if FAMILY.get(c["task"]) in statement.get("families", [FAMILY.get(c["task"])])]
    return [c for c in inside if c["task"] in statement.get("tasks", [c["task"]])]


def difference(statement, ours, theirs, level=0.95):
    """Estimate, low and high; None where records are missing."""
    stage, measure = statement.get("stage", "final"), statement.get("measure")
    columns = wanted(statement, TELLING)
    if measure:  # of a training, once: of tasks that share trainings the first one
        first = {}
        for c in columns:
            shared = {r["train_id"] for r in runs_of(ours, c["task"], stage)}
            first.setdefault(min(shared, default=c["task"]), c)
        columns = list(first.values())
    sides = [ours, theirs, *({"method": m} for m in TABLES["overall"]["methods"] if stage == "final")]
    sides = list({json.dumps({"settings": {}} | s, sort_keys=True): s for s in sides}.values())
    back = (lambda x: x) if measure else points
    cells = {}  # (side, column) -> seed -> (training, value)
    for (i, side), (j, column) in itertools.product(enumerate(sides), enumerate(columns)):
        runs = runs_of(side, column["task"], stage)
        if statement.get("best_rate"):
            near = [c["task"] for c in columns if FAMILY[c["task"]] == FAMILY[column["task"]]]
            grid = [r for task in dict.fromkeys(near) for r in tried(side, task, stage)]
            runs = [r for r in at_best_rate(grid) if r["spec"]["task"]["name"] == column["task"]]
        values = {r["spec"]["seed"]: (r["train_id"], measured(r, column, measure)) for r in runs}
        cells[i, j] = {seed: pair for seed, pair in values.items() if pair[1] is not None}
    for j, column in enumerate([] if measure else columns):
        worst = lowest([r for side in sides for r in runs_of(side, column["task"], stage)], column)
        for i, side in enumerate(sides):
            for r in runs_of(side, column["task"], stage, (), "failed") if worst is not None else ():
                cells[i, j][r["spec"]["seed"]] = (r["train_id"], worst)
    rows = [i for i in range(len(sides)) if all(cells[i, j] for j in range(len(columns)))]
    if not columns or not {0, 1} <= set(rows):
        return None
    parts = []
    for family in sorted({FAMILY[c["task"]] for c in columns}):
        js = [j for j, c in enumerate(columns) if FAMILY[c["task"]] == family]
        n = min(len(cells[i, j]) for i in rows for j in js)
        if n < 2:
            return (0.0, None, None)
        picked = [[[cells[i, j][s] for s in sorted(cells[i, j])[:n]] for j in js] for i in rows]
        y = np.array([[[value for _, value in cell] for cell in row] for row in picked])  # (methods, tasks, seeds)
        y = y if measure else special.logit(0.01 + 0.98 * np.clip(y, 0, 1))
        shared = len({training for cell in picked[0] for training, _ in cell}) < len(js) * n
        parts.append(part(y, shared, back))
    return interval(parts, level)


def expected(found, expect, margin):
    if found is None or found[1] is None:
        return "undecided" if found else "not run"
    _, low, high = found
    equal = margin and -margin <= low and high <= margin
    direction = "equal" if equal else "higher" if low > 0 else "lower" if high < 0 else "undecided"
    return direction if direction == "undecided" else "confirmed" if direction == expect else "contradicted"


def inside(low, high, between):
    start, end = (default if x is None else x for x, default in zip(between, (-np.inf, np.inf), strict=True))
    return "confirmed" if start <= low and high <= end else "contradicted" if high < start or low > end else "undecided"


def tie(s):
    pairs = [({"method": a}, {"method": b}) for a, b in itertools.combinations(s["methods"], 2)]
    for pair in pairs:
        verdict = expected(difference(s, *pair), "equal", 0.02)
        strict = difference(s, *pair, level=1 - 0.05 / len(pairs)) if verdict == "contradicted" else None
        yield expected(strict, "equal", 0.02) if strict else verdict


def optimum(runs):
    """Best rate between those of the grid by a parabola; which end of the grid it lies at, if any."""
    losses = {r["spec"]["train"]["lr"]: judged_by(r) for r in runs}
    rates = sorted(losses)
    x, y = np.log(rates), np.array([losses[rate] for rate in rates])
    k = int(np.argmin(y))
    if k in (0, len(x) - 1):
        return x[k], -1 if k == 0 else 1
    (left, right), (down, up) = np.diff(x[k - 1 : k + 2]), y[[k - 1, k + 1]] - y[k]
    if np.isinf(down) or np.isinf(up):
        return x[k] + (right / 2 if np.isinf(down) else 0) - (left / 2 if np.isinf(up) else 0), 0
    bend = down * right + up * left
    return x[k] + ((down * right**2 - up * left**2) / (2 * bend) if bend else 0), 0


def best_rate(s):
    ratios, first, open_ends = defaultdict(lambda: defaultdict(list)), {}, set()
    for task in dict.fromkeys(c["task"] for c in wanted(s, TELLING)):
        grids = [defaultdict(list), defaultdict(list)]
        for side, by_seed in zip((s["ours"], s["theirs"]), grids, strict=True):
            for r in tried(side, task, s.get("stage", "tune")):
                by_seed[r["spec"]["seed"]].append(r)
        for seed in sorted(set(grids[0]) & set(grids[1])):
            both = [by_seed[seed] for by_seed in grids]
            if any(len({r["spec"]["train"]["lr"] for r in g}) < 3 or np.isinf(min(map(judged_by, g))) for g in both):
                continue
            (ours, end), (theirs, their_end) = map(optimum, both)
            ratios[first.setdefault(min(r["train_id"] for r in both[0]), task)][seed].append(ours - theirs)
            open_ends |= {end, -their_end}  # 1: the ratio may be higher, -1: lower
    units = [[np.mean(found) for found in by_seed.values()] for by_seed in ratios.values()]
    units = [np.mean(found) for found in units] if len(units) > 1 else [x for found in units for x in found]
    if len(units) < 2:
        return "undecided" if units else "not run"
    half = stats.t.ppf(0.975, len(units) - 1) * stats.sem(units)
    low, high = np.exp([np.mean(units) - half, np.mean(units) + half])
    start, end = s["between"]
    inside_below = start is None or (low > start and -1 not in open_ends)
    if inside_below and (end is None or (high < end and 1 not in open_ends)):
        return "confirmed"
    below = start is not None and high < start and 1 not in open_ends
    above = end is not None and low > end and -1 not in open_ends
    return "contradicted" if below or above else "undecided"


def fisher(by_method):
    pairs = [pair for found in by_method for pair in found]
    if not pairs or min(len(set(column)) for column in zip(*pairs, strict=True)) < 2:
        return None
    return np.arctanh(np.clip(stats.spearmanr(*zip(*pairs, strict=True)).statistic, -0.9999, 0.9999))


def correlation(s):
    parts = []
    for task in sorted({c["task"] for c in wanted(s, TELLING)}):
        by_method = defaultdict(dict)
        for (name, method, *how), cell in CELLS.items():
            for r in cell if name == task and how == [s.get("stage", "final"), "ok"] else ():
                pair = [measured(r, {}, s[key]) for key in "xy"]
                if not changed(r) and None not in pair:
                    by_method[method][r["train_id"]] = pair
        groups = [list(found.values()) for found in by_method.values()]
        if s.get("unit") == "method":
            groups = [[np.mean(found, axis=0)] for found in groups]
        if len(groups) < 4 or (z := fisher(groups)) is None:
            continue
        if max(map(len, groups)) == 1:  # Bonett and Wright
            parts.append((z, (1 + np.tanh(z) ** 2 / 2) / (len(groups) - 3), 1.959964))
        else:  # jackknife over methods
            without = [fisher(groups[:k] + groups[k + 1 :]) for k in range(len(groups))]
            left = np.array([x for x in without if x is not None])
            parts.append((z, (len(left) - 1) * left.var(), stats.t.ppf(0.975, len(left) - 1)))
    if not parts:
        return "not run"
    middles, variances, quantiles = np.array(parts).T
    half = quantiles.max() * variances.sum() ** 0.5 / len(parts)
    return inside(np.tanh(middles.mean() - half), np.tanh(middles.mean() + half), s["between"])


def matching(s):
    straight = [(layers, name) for layers in PAIRS for name in layers if name.startswith("straight/")]
    changes = [
        layers[name.replace("straight", "permuted")][s["measure"]] - layers[name][s["measure"]]
        for layers, name in straight
    ]
    if not changes:
        return "not run"
    half = stats.t.ppf(0.975, len(changes) - 1) * stats.sem(changes)
    bounds = [0, None] if s["expect"] == "higher" else [None, 0]
    return inside(np.mean(changes) - half, np.mean(changes) + half, bounds)


def verdicts(claim):
    for s in (s for s in claim.get("statements", []) if "pocket" in s.get("scales", ["pocket"])):
        if wanted(s, COLUMNS) and not wanted(s, TELLING):
            yield "undecided"
        elif s["kind"] == "compare":
            margin = 0.0 if s.get("measure") else 0.02
            yield expected(difference(s, s["ours"], s["theirs"]), s["expect"], margin)
        elif s["kind"] == "tie":
            yield from tie(s)
        else:
            yield {"best_rate": best_rate, "correlation": correlation, "matching": matching}[s["kind"]](s)


TELLING = [column for column in COLUMNS if tells(column)]
for path in sorted((ROOT / "conf/claim").glob("*.yaml")):
    claim = yaml.safe_load(path.read_text())
    found = set(verdicts(claim)) or {"not run"}
    print(claim["number"], next((v for v in ("contradicted", "not run", "undecided") if v in found), "confirmed"))
