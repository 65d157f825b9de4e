"""Verdicts on claims from made-up records, and the committed page of claims computed in two ways."""

from __future__ import annotations

import csv
import functools
import re
import subprocess
import sys

import numpy as np
import pytest
import yaml
from scipy import stats

from eva_bench.reporting.archive import Archive
from eva_bench.reporting.claims.command import PAGE, main
from eva_bench.reporting.claims.evaluate import difference_verdict, judge
from eva_bench.reporting.claims.finding import by_expectation
from eva_bench.reporting.claims.page import render
from eva_bench.reporting.claims.spec import Claim, check_names, read_claim, read_claims
from eva_bench.reporting.statistics import Difference
from eva_bench.system.errors import UserError
from eva_bench.system.paths import CONF
from tests.conftest import ROOT
from tests.records import record


def claim(*statements: dict) -> Claim:
    content = {"name": "x", "number": 1, "claim": "c", "published": "p", "source": "s", "statements": list(statements)}
    return Claim.model_validate(content)


def compare(ours: str, theirs: str, expect: str, **changes) -> dict:
    sides = {"ours": {"method": ours}, "theirs": {"method": theirs}}
    return {"kind": "compare", "expect": expect, "tasks": ["gsm8k"]} | sides | changes


SCORES = {"lora": (0.50, 0.52, 0.54), "eva": (0.70, 0.72, 0.74), "pissa": (0.51, 0.53, 0.55)}
RECORDS = [record(method, seed, score) for method, found in SCORES.items() for seed, score in enumerate(found)]


def verdict(*statements: dict, records=RECORDS) -> str:
    return judge(claim(*statements), Archive(records), "pocket")[0]


def test_a_difference_confirms_contradicts_or_leaves_undecided():
    assert verdict(compare("eva", "lora", "higher")) == "confirmed"
    assert verdict(compare("lora", "eva", "higher")) == "contradicted"
    assert verdict(compare("lora", "eva", "lower")) == "confirmed"
    assert verdict(compare("eva", "lora", "equal")) == "contradicted"
    assert verdict(compare("pissa", "lora", "higher")) == "undecided"


def test_all_statements_have_to_hold():
    holds, open_, wrong = (
        compare("eva", "lora", "higher"),
        compare("pissa", "lora", "higher"),
        compare("eva", "lora", "lower"),
    )
    missing = compare("sorsa", "lora", "higher")
    assert verdict(holds, holds) == "confirmed" and verdict(holds, open_) == "undecided"
    everywhere = compare("eva", "lora", "higher", tasks=[])
    assert verdict(everywhere) == "not run"  # the other tasks have no records
    assert verdict(holds, open_, missing) == "not run" and verdict(wrong, missing) == "contradicted"


def test_a_statement_is_asked_at_its_scales_alone():
    holds, elsewhere = compare("eva", "lora", "higher"), compare("eva", "lora", "lower", scales=["paper"])
    found, findings = judge(claim(holds, elsewhere), Archive(RECORDS), "pocket")
    assert found == "confirmed" and len(findings) == 1
    assert judge(claim(elsewhere), Archive(RECORDS), "pocket") == ("not run", [])
    assert verdict(holds, compare("eva", "lora", "lower", scales=["pocket"])) == "contradicted"


def test_a_finding_gives_interval_trainings_and_what_would_decide():
    _, (finding,) = judge(claim(compare("pissa", "lora", "higher")), Archive(RECORDS), "pocket")
    assert re.fullmatch(
        r"score of pissa above that of lora: \+1.0 \[-.*, \+.*\] points, about \d+ seeds would decide", finding.text
    )
    assert finding.trainings == 6


def test_equality_within_the_margin_contradicts_a_lead():
    def of(low: float, high: float, expect: str) -> str:
        return difference_verdict(Difference("a", "b", (low + high) / 2, low, high), expect, 0.02)

    assert of(-0.01, 0.01, "higher") == "contradicted" and of(-0.01, 0.03, "higher") == "undecided"
    assert of(0.001, 0.01, "higher") == "contradicted" and of(0.001, 0.01, "equal") == "confirmed"
    assert of(0.001, 0.03, "higher") == "confirmed" and of(-0.03, -0.01, "higher") == "contradicted"
    assert of(0.001, 0.03, "equal") == "contradicted"
    assert of(-0.01, 0.01, "equal") == "confirmed" and of(0.01, 0.03, "equal") == "contradicted"
    assert difference_verdict(Difference("a", "b", 0.5), "higher", 0.02) == "undecided"  # one seed
    assert [by_expectation(*ends, (0.0, 1.0)) for ends in ((0.2, 0.9), (0.5, 2.0), (1.1, 2.0))] == [
        "confirmed",
        "undecided",
        "contradicted",
    ]


def tuned(method: str, seed: int, losses: dict[float, float], task: str = "gsm8k", training: str = "") -> list:
    runs = []
    for lr, loss in losses.items():
        name = f"{method}{seed}{lr}"
        metrics = {"exact_match_strict": 0.5, "reference_loss": loss}
        spec, origins = {"stage": "tune", "train": {"lr": lr}}, {"command_line": [f"method={method}", f"train.lr={lr}"]}
        ids = {"run_id": name + task, "train_id": name + training}
        runs.append(record(method, seed, 0.5, task=task, metrics=metrics, spec=spec, origins=origins, **ids))
    return runs


LOW, HIGH = {1e-4: 2.0, 1e-3: 1.0, 1e-2: 2.0, 0.1: 4.0}, {1e-4: 4.0, 1e-3: 2.0, 1e-2: 1.0, 0.1: 2.0}  # best: 1e-3, 1e-2
BELOW = {"kind": "best_rate", "ours": {"method": "pissa"}, "theirs": {"method": "lora"}, "between": [None, 1]}
ABOVE = BELOW | {"between": [1, None]}


def test_the_ratio_of_best_rates_is_a_mean_over_seeds_of_one_task():
    records = [*tuned("pissa", 0, LOW), *tuned("lora", 0, HIGH), *tuned("pissa", 1, LOW), *tuned("lora", 1, HIGH)]
    found, (finding,) = judge(claim(BELOW), Archive(records), "pocket")
    assert found == "confirmed" and ": 0.1 [0.1, 0.1] over 2 seeds" in finding.text and finding.trainings == 16
    assert verdict(ABOVE, records=records) == "contradicted"
    assert verdict(BELOW, records=records[:8]) == "undecided"  # one seed
    assert verdict(BELOW, records=RECORDS) == "not run"


def test_the_same_best_rate_is_neither_above_nor_below():
    records = [run for method in ("pissa", "lora") for seed in (0, 1) for run in tuned(method, seed, LOW)]
    assert verdict(BELOW, records=records) == verdict(ABOVE, records=records) == "undecided"


def test_a_best_rate_at_the_end_of_its_grid_decides_nothing_on_the_open_side():
    lora = [run for seed in (0, 1) for run in tuned("lora", seed, HIGH)]
    ends = {"upper": {1e-5: 4.0, 1e-4: 2.0, 1e-3: 1.0}, "lower": {1e-3: 1.0, 1e-2: 2.0, 0.1: 4.0}}
    records = {end: lora + [run for seed in (0, 1) for run in tuned("pissa", seed, ends[end])] for end in ends}
    assert verdict(BELOW, records=records["lower"]) == "confirmed"  # the best rate may be lower still
    assert verdict(ABOVE, records=records["lower"]) == "contradicted"
    assert verdict(BELOW, records=records["upper"]) == verdict(ABOVE, records=records["upper"]) == "undecided"
    _, (finding,) = judge(claim(BELOW), Archive(records["upper"]), "pocket")
    assert "2 of 2 pairs of grids with an optimum at an end" in finding.text


def test_the_unit_of_a_ratio_is_the_task_and_tasks_of_one_training_are_one():
    def both(task: str, training: str) -> list:
        grids = {"pissa": LOW, "lora": HIGH}
        return [r for m, losses in grids.items() for seed in (0, 1) for r in tuned(m, seed, losses, task, training)]

    _, (shared,) = judge(claim(BELOW), Archive([*both("gsm8k", ""), *both("math", "")]), "pocket")
    _, (apart,) = judge(claim(BELOW), Archive([*both("gsm8k", ""), *both("math", "again")]), "pocket")
    assert "over 2 seeds" in shared.text and shared.trainings == 16
    assert "over 2 tasks" in apart.text and apart.trainings == 32


def test_a_tie_needs_every_pair_to_be_equivalent():
    close = {"lora": (0.500, 0.502, 0.504), "eva": (0.501, 0.503, 0.505), "pissa": (0.499, 0.502, 0.503)}
    records = [record(method, seed, score) for method, found in close.items() for seed, score in enumerate(found)]
    tie = {"kind": "tie", "methods": ["lora", "eva", "pissa"], "tasks": ["gsm8k"]}
    assert verdict(tie, records=records) == "confirmed" and verdict(tie) == "contradicted"
    assert verdict(tie | {"methods": ["lora", "olora"]}) == "not run"


def correlated(method: str, task: str, points) -> list:
    return [
        record(method, seed, 0.5, task=task, metrics={"exact_match_strict": 0.5, "x": x, "y": y})
        for seed, (x, y) in enumerate(points)
    ]


def test_a_correlation_over_trainings_is_one_of_ranks_within_each_task_with_a_jackknife_over_methods():
    points = {  # nearly the same order in both
        "lora": [(0, 0), (1, 1), (2, 4)], "eva": [(3, 5), (4, 3), (5, 6)], "pissa": [(6, 7), (7, 9), (8, 8)],
        "olora": [(9, 10), (10, 12), (11, 11)], "sorsa": [(12, 13), (13, 15), (14, 14)],
    }  # fmt: skip
    statement = {"kind": "correlation", "x": "x", "y": "y", "between": [0.5, 1]}
    records = [run for method, found in points.items() for run in correlated(method, "gsm8k", found)]
    assert verdict(statement, records=records) == "confirmed" and verdict(statement) == "not run"
    assert verdict(statement | {"between": [-1, 0]}, records=records) == "contradicted"

    def transformed(without: str | None = None) -> float:
        pairs = [pair for method, found in points.items() if method != without for pair in found]
        return float(np.arctanh(stats.spearmanr(*zip(*pairs, strict=True)).statistic))

    left = [transformed(method) for method in points]
    half = stats.t.ppf(0.975, 4) * np.sqrt(4 / 5 * sum((value - np.mean(left)) ** 2 for value in left))
    rho, low, high = np.tanh([transformed(), transformed() - half, transformed() + half])
    _, (finding,) = judge(claim(statement), Archive(records), "pocket")
    assert f": {rho:.2f} [{low:.2f}, {high:.2f}], 15 trainings of 1 tasks" in finding.text
    elsewhere = [  # pooled, tasks would turn it round
        run
        for method, found in points.items()
        for run in correlated(method, "math", [(x + 99, y - 99) for x, y in found])
    ]
    found, (finding,) = judge(claim(statement), Archive([*records, *elsewhere]), "pocket")
    assert found == "confirmed" and finding.trainings == 30 and "30 trainings of 2 tasks" in finding.text
    few = [run for run in records if run.method in ("lora", "eva", "pissa")]
    assert verdict(statement, records=few) == "not run"


def test_trainings_of_few_methods_are_no_independent_points():
    """Within each method the order is the same; between methods it is not."""
    shift = {"lora": 0, "eva": -20, "pissa": 5, "olora": -30, "sorsa": 40}
    records = [
        run
        for i, (method, down) in enumerate(shift.items())
        for run in correlated(method, "gsm8k", [(10 * i + k, down + k) for k in range(6)])
    ]
    assert verdict({"kind": "correlation", "x": "x", "y": "y", "between": [0.8, 1]}, records=records) == "undecided"


def test_a_correlation_of_methods_takes_their_means():
    methods = ["lora", "eva", "pissa", "olora", "sorsa"]
    records = [r for i, m in enumerate(methods) for r in correlated(m, "gsm8k", [(i + d, i - d) for d in (-2, 0, 2)])]
    statement = {"kind": "correlation", "x": "x", "y": "y", "between": [0.9, 1], "unit": "method"}
    found, (finding,) = judge(claim(statement), Archive(records), "pocket")
    assert found == "confirmed" and finding.trainings == 15 and "5 means of methods of 1 tasks" in finding.text
    assert verdict(statement | {"unit": "training"}, records=records) == "contradicted"


def test_matching_is_a_mean_over_pairs_of_pretrainings():
    def pairs(*alignments):
        ways = (("straight", 0), ("permuted", 1))
        return {f"{way}/0-{j}": {"alignment": pair[k]} for j, pair in enumerate(alignments) for way, k in ways}

    both = [pairs((0.01, 0.2), (0.02, 0.19)), pairs((0.03, 0.25))]
    statement = {"kind": "matching", "measure": "alignment", "expect": "higher"}
    found, (finding,) = judge(claim(statement), Archive([], None, both), "pocket")
    assert found == "confirmed" and "over 3 pairs of 2 models" in finding.text and "+0.193" in finding.text
    assert judge(claim(statement | {"expect": "lower"}), Archive([], None, both), "pocket")[0] == "contradicted"
    assert judge(claim(statement), Archive([], None, both[1:]), "pocket")[0] == "undecided"  # one pair: no interval
    assert judge(claim(statement), Archive([], None, both), "small")[0] == "not run"


def test_what_is_not_a_claim_is_one_sentence(tmp_path):
    path = tmp_path / "bad.yaml"
    good = {"number": 1, "claim": "c", "published": "p", "source": "s"}
    for content, said in (
        (good, "either statements or a sentence"),
        (good | {"statements": [compare("eva", "lora", "higher")], "needs": "more"}, "either statements"),
        (good | {"statements": [compare("eva", "lora", "best")]}, "statements.0.compare.expect"),
        ([1], "bad.yaml"),
    ):
        path.write_text(yaml.safe_dump(content))
        with pytest.raises(UserError, match=said) as refused:
            read_claim(path)
        assert "\n" not in str(refused.value)
    with pytest.raises(UserError, match=r"unknown method 'piza'.*'pissa'"):
        check_names(claim(compare("piza", "lora", "higher")))
    with pytest.raises(UserError, match=r"unknown scale 'poket'.*'pocket'"):
        check_names(claim(compare("pissa", "lora", "higher", scales=["poket"])))
    path.write_text(yaml.safe_dump(good | {"needs": "a probe"}))
    (tmp_path / "other.yaml").write_text(path.read_text())
    with pytest.raises(UserError, match="two claims have the number 1"):
        read_claims(tmp_path)


def test_all_21_claims_of_the_suite_are_well_formed_and_stand_on_the_page_without_records():
    claims = read_claims()
    assert [found.number for found in claims] == list(range(1, 22))
    for found in claims:
        check_names(found)
    page = render(claims, Archive([]))
    assert page.count("| not run |") == 21


def test_a_scale_without_runs_for_a_claim_is_not_on_the_page():
    known = claim(compare("eva", "lora", "higher"))
    elsewhere = record("lora", 0, task="glue/rte", scale="small")
    page = render([known], Archive([*RECORDS, elsewhere]))
    assert "Scale pocket: confirmed" in page and "Scale small" not in page
    unknown = claim(compare("sorsa", "olora", "higher"))
    page = render([unknown], Archive([*RECORDS, elsewhere]))
    assert page.count("**Scale") == 1 and "**Scale pocket: not run.**" in page


def test_the_committed_page_is_what_the_records_give_and_a_script_without_this_project_agrees(tmp_path):
    assert main([f"results_dir={ROOT / 'results'}", f"page={tmp_path / 'claims.md'}"]) == 0
    text = (tmp_path / "claims.md").read_text(encoding="utf-8")
    assert PAGE.read_text(encoding="utf-8") == text, "run `make claims`"
    done = subprocess.run(
        [sys.executable, "docs/recompute_claims.py"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    again = dict(line.split(" ", 1) for line in done.stdout.splitlines())
    sections = re.findall(r"^## (\d+)\..*?\*\*Scale pocket: ([a-z ]+?)(?: here)?\.\*\*", text, re.MULTILINE | re.DOTALL)
    assert len(again) == 21 and dict(sections) == again


def test_a_script_without_this_project_agrees_on_every_pair_of_methods():
    done = subprocess.run([sys.executable, "docs/recompute.py"], cwd=ROOT, capture_output=True, text=True, check=True)
    again = {tuple(words[:2]): words[2:] for words in map(str.split, done.stdout.splitlines())}
    with (ROOT / "results/tables/overall-pairs-pocket.csv").open(encoding="utf-8") as file:
        rows = {row["method"]: row for row in csv.DictReader(file)}
    assert len(again) == len(rows) * (len(rows) - 1) / 2 > 0
    for (ours, theirs), (*numbers, verdict) in again.items():
        assert rows[ours][theirs].startswith("{} [{}, {}] {}".format(*numbers, verdict))


def test_verdicts_of_another_folder_leave_the_committed_page_alone(tmp_path, capsys):
    before = PAGE.read_bytes()
    (tmp_path / "records").mkdir()
    assert main([f"results_dir={tmp_path}"]) == 0
    assert (tmp_path / "claims.md").is_file() and PAGE.read_bytes() == before
    assert main([f"results_dir={tmp_path / 'nosuch'}"]) == 2
    assert "cannot be written" in capsys.readouterr().err


@functools.cache
def grids() -> list[dict]:
    """The grids of all suites, every value a list."""
    found = [grid for path in (CONF / "suite").glob("*.yaml") for grid in yaml.safe_load(path.read_text())["grids"]]
    return [{key: value if isinstance(value, list) else [value] for key, value in grid.items()} for grid in found]


def in_recipe(task: str, setting: str):
    """The value that the pocket recipe of a task gives a setting."""
    family = {"gsm8k": "math"}.get(task, task.partition("/")[0])
    value = yaml.safe_load((CONF / "recipe" / "pocket" / f"{family}.yaml").read_text())
    for name in setting.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value


def has(grid: dict, side: dict, task: str, stage: str) -> bool:
    """Whether a grid has the cells of a side: its method, task, stage and settings, and no others."""
    families = {task, task.partition("/")[0]}
    plain = {"task", "method", "seed", "stage", "scale", "train.lr"}
    wanted = side.get("settings", {})
    return (
        side["method"] in grid["method"]
        and bool(families & set(grid["task"]))
        and grid.get("stage", ["final"]) == [stage]
        and set(grid) - plain <= set(wanted)
        and all(value in grid.get(key, [in_recipe(task, key)]) for key, value in wanted.items())
    )


@pytest.mark.parametrize("path", sorted((CONF / "claim").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_cell_that_a_claim_names_is_in_a_suite(path):
    """Otherwise a claim stays "not run" however much is computed."""
    for statement in yaml.safe_load(path.read_text()).get("statements", []):
        stage = statement.get("stage", "tune" if statement["kind"] == "best_rate" else "final")
        named = [statement[key] for key in ("ours", "theirs") if key in statement]
        for side in [*named, *({"method": name} for name in statement.get("methods", []))]:
            known = {task for grid in grids() for task in grid["task"] if has(grid, side, task, stage)}
            missing = [task for task in statement.get("tasks", []) if not {task, task.partition("/")[0]} & known]
            assert known and not missing, f"{side} on {missing or 'any task'}"
            if statement.get("best_rate") or statement["kind"] == "best_rate":
                for task in statement.get("tasks") or known:
                    rates = {rate for grid in grids() if has(grid, side, task, stage) for rate in grid["train.lr"]}
                    assert len(rates) > 2, f"{side} on {task}"
