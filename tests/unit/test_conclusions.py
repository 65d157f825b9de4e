"""What does not tell methods apart enters no conclusion: simulated records of nine methods on four tasks."""

from __future__ import annotations

import numpy as np
import pytest

from eva_bench.reporting.archive import Archive
from eva_bench.reporting.claims.evaluate import judge
from eva_bench.reporting.claims.spec import Claim
from eva_bench.reporting.figures.scores import draw_ranks
from eva_bench.reporting.page.scales import scale_data
from eva_bench.reporting.tables.build import assemble
from eva_bench.reporting.tables.cells import select
from eva_bench.reporting.tables.command import all_tables
from eva_bench.reporting.tables.differences import build_differences
from eva_bench.reporting.tables.spec import read_table
from eva_bench.reporting.tables.summary import build_pairs, build_summary
from tests.conftest import CONF
from tests.records import record

OVERALL = read_table(CONF / "table/overall.yaml")
METHODS = OVERALL.methods
TELLING = {"vtab1k/dtd": 0.3, "vtab1k/svhn": 0.4, "vtab1k/eurosat": 0.5}


def made_up(task: str, score, methods=METHODS) -> list:
    """Five trainings of every method on an image task; `score(method's number, seed)`."""
    spec = {"task": {"family": task.split("/")[0], "primary": "accuracy"}}
    return [
        record(method, seed, task=task, spec=spec, metrics={"accuracy": value}, metrics_before={"accuracy": 0.1},
               run_id=f"{task}-{method}-{seed}", train_id=f"{task}-{method}-{seed}")
        for i, method in enumerate(methods) for seed in range(5) for value in [float(score(i, seed))]
    ]  # fmt: skip


def simulated(noise: np.random.Generator) -> tuple[list, list]:
    """Records of tasks on which methods lie 3 points apart, and of tasks that say nothing: noise, ceiling, floor."""
    telling = [
        each
        for task, level in TELLING.items()
        for each in made_up(task, lambda i, _, level=level: level + 0.03 * i + noise.normal(0, 0.01))
    ]
    useless = made_up("vtab1k/kitti", lambda i, _: 0.5 + noise.normal(0, 0.1))
    useless += made_up("vtab1k/resisc45", lambda i, _: 0.99 + 0.001 * i)
    useless += made_up("vtab1k/dmlab", lambda i, seed: 0.1 + 0.001 * i + 0.0001 * seed)
    return telling, useless


@pytest.fixture(scope="module")
def archives():
    telling, useless = simulated(np.random.default_rng(3))
    return Archive(telling), Archive(telling + useless)


def lines(table) -> list:
    return [(line.title, [cell.text for cell in line.cells]) for line in table.lines]


def test_every_task_is_judged_by_the_stated_rule_alone(archives):
    (table,) = (table for table in all_tables(archives[1])[0] if table.name == "tasks")
    marks = {line.title: line.cells[-1].text for line in table.lines}
    assert marks == {
        "DTD": "yes", "SVHN": "yes", "EuroSAT": "yes",
        "Resisc45": "apart: ceiling", "DMLab": "apart: floor", "KITTI-Dist": "apart: unreliable",
    }  # fmt: skip


def test_statistics_ranks_and_averages_are_those_of_the_other_tasks(archives):
    less, more = (select(archive, OVERALL, "pocket", None) for archive in archives)
    summaries = [[(title, cells[:-1]) for title, cells in lines(build_summary(each, None))] for each in (less, more)]
    assert summaries[0] == summaries[1]  # but for collapsed runs, which are counted wherever they happen
    assert lines(build_pairs(less, None)) == lines(build_pairs(more, None))
    averages = []
    for table in (assemble(less, None), assemble(more, None)):
        position = next(i for i, name in enumerate(table.header) if name.startswith("All (")) - 1
        averages.append({line.title: line.cells[position].sort for line in table.lines})
    assert averages[0] == averages[1] and averages[0]["lora"] == pytest.approx(0.43, abs=0.02)
    assert draw_ranks(less).caption == draw_ranks(more).caption
    both = [scale_data(archive, "pocket") for archive in archives]
    assert all(both[0][key] == both[1][key] for key in ("pairs", "means", "ranks"))


def test_they_are_shown_apart_with_their_intervals_and_named_below_every_table(archives):
    table = build_differences(select(archives[1], read_table(CONF / "table/vtab1k.yaml"), "pocket", None), None)
    assert table.header[-3:] == ["Resisc45 (apart)", "DMLab (apart)", "KITTI-Dist (apart)"]
    assert all("[" in line.cells[-1].text for line in table.lines)
    (note,) = (note for note in table.notes if note.startswith("Left out of statistics"))
    assert note.endswith("Resisc45 (ceiling), DMLab (floor), KITTI-Dist (unreliable).")


@pytest.mark.parametrize(
    ("tasks", "verdict"), [(["vtab1k/kitti"], "undecided"), ([*TELLING, "vtab1k/kitti"], "confirmed")]
)
def test_no_claim_rests_on_them(archives, tasks, verdict):
    sides = {"ours": {"method": METHODS[-1]}, "theirs": {"method": METHODS[0]}, "expect": "higher", "tasks": tasks}
    content = {"name": "x", "number": 1, "claim": "c", "published": "p", "source": "s"}
    claim = Claim.model_validate(content | {"statements": [{"kind": "compare", **sides}]})
    found, (finding,) = judge(claim, archives[1], "pocket")
    assert found == verdict and finding.trainings == (30 if verdict == "confirmed" else 0)


def test_a_family_without_any_such_task_has_no_differences(archives):
    records = made_up("vtab1k/kitti", lambda i, seed: 0.5 + 0.1 * (seed % 2)) + made_up(
        "glue/rte", lambda i, seed: 0.1 * i
    )
    data = scale_data(Archive(records), "pocket")
    assert data["pairs"]["vtab1k"] == {} and data["pairs"]["glue"][METHODS[1]][METHODS[0]][0] > 0
    assert data["apart"] == {"KITTI-Dist": "unreliable"}
    assert all(table.lines for table in all_tables(Archive(records))[0])


def test_a_task_counts_until_every_method_has_two_trainings_of_it():
    records = [
        each for each in made_up("vtab1k/kitti", lambda i, seed: 0.5 + 0.01 * seed) if each.seed or each.method != "eva"
    ]
    records = [each for each in records if each.method != "eva" or each.seed < 2]
    assert select(Archive(records), OVERALL, "pocket", None).judged == {}


def test_methods_that_vary_more_widen_every_interval_and_a_table_shows_it():
    noise = np.random.default_rng(5)
    shift = {m: noise.normal(0, 0.1 if m in OVERALL.sensitive_to else 0.005, 3) for m in METHODS}
    records = [
        run
        for k, (task, level) in enumerate(TELLING.items())
        for run in made_up(
            task, lambda i, _, k=k, level=level: level + 0.02 * i + shift[METHODS[i]][k] + noise.normal(0, 0.005)
        )
    ]
    (table,) = (table for table in all_tables(Archive(records))[0] if table.name == "overall-sensitivity")
    assert {line.title for line in table.lines} == set(METHODS) - {*OVERALL.sensitive_to, "lora"}
    verdicts = [(line.cells[1].text.split(" ")[0], line.cells[3].text.split(" ")[0]) for line in table.lines]
    assert ("undecided", "different") in verdicts and ("different", "undecided") not in verdicts
    few = [run for run in records if run.method not in OVERALL.sensitive_to]
    assert "overall-sensitivity" not in {table.name for table in all_tables(Archive(few))[0]}


@pytest.fixture(scope="module")
def telling():
    return simulated(np.random.default_rng(3))[0]


def further(tasks) -> list:
    """A method that the tables do not name, far ahead and noisy, on some of the tasks."""
    return [run for task in tasks for run in made_up(task, lambda i, seed: 0.9 - 0.1 * (seed % 2), ["dora"])]


def test_a_further_method_without_every_task_is_shown_but_changes_no_statistic(telling):
    images = read_table(CONF / "table/vtab1k.yaml")
    found = [Archive(telling), Archive([*telling, *further(["vtab1k/dtd"])]), Archive([*telling, *further(TELLING)])]
    none, some, every = (select(archive, images, "pocket", None) for archive in found)
    assert "dora" in [line.title for line in assemble(some, None).lines]
    assert lines(build_summary(some, None)) == lines(build_summary(none, None))
    assert lines(build_pairs(some, None)) == lines(build_pairs(none, None))
    assert "In no statistic, because they have not every task: dora." in build_summary(some, None).notes
    assert "dora" in [line.title for line in build_summary(every, None).lines]


def test_over_all_tasks_only_methods_with_every_one_are_ranked(telling):
    found = [Archive([*telling, *further(tasks)]) for tasks in (["vtab1k/dtd"], TELLING)]
    some, every = ({row.title for row in select(each, OVERALL, "pocket", None).table.rows} for each in found)
    assert every - some == {"dora"}
