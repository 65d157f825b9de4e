"""Rank correlation of two scales against values by hand, and its table from made-up records."""

from __future__ import annotations

import math

import pytest
import yaml

from eva_bench.reporting.archive import Archive
from eva_bench.reporting.figures.agreement import draw_agreement
from eva_bench.reporting.statistics import Score, rank_agreement
from eva_bench.reporting.statistics.agreement import spearman_interval
from eva_bench.reporting.tables.agreement import build_agreement
from eva_bench.reporting.tables.spec import read_table
from tests.conftest import CONF
from tests.records import record


def scores(values: dict[str, list[float]], task: str = "t") -> list[Score]:
    return [Score(m, "f", task, f"{m}{i}", v) for m, found in values.items() for i, v in enumerate(found)]


OURS = {"a": [0.9, 0.8], "b": [0.7, 0.7], "c": [0.6, 0.4], "d": [0.3, 0.3], "e": [0.1, 0.2]}
THEIRS = {"a": [0.6, 0.6], "b": [0.7, 0.9], "c": [0.5, 0.5], "d": [0.2, 0.4], "e": [0.1, 0.1]}


def test_the_correlation_of_ranks_by_hand():
    # Ranks 1 2 3 4 5 and 2 1 3 4 5: 1 - 6 * (1 + 1) / (5 * 24).
    found = rank_agreement(scores(OURS), scores(THEIRS))
    assert found.correlation == pytest.approx(0.9) and (found.methods, found.tasks) == (5, 1)
    assert rank_agreement(scores(OURS), scores(OURS)).correlation == pytest.approx(1)
    turned = {name: [1 - value for value in values] for name, values in OURS.items()}
    assert rank_agreement(scores(OURS), scores(turned)).correlation == pytest.approx(-1)


def test_the_interval_is_that_of_bonett_and_wright():
    low, high = spearman_interval(0.9, 12)
    error = 1.959964 * math.sqrt((1 + 0.9**2 / 2) / 9)
    z = 0.5 * math.log(1.9 / 0.1)
    ends = [(math.exp(2 * v) - 1) / (math.exp(2 * v) + 1) for v in (z - error, z + error)]
    assert [low, high] == pytest.approx(ends)
    assert spearman_interval(0.5, 3) == (None, None) and spearman_interval(1.0, 9) == (1.0, 1.0)


def test_agreement_of_a_scale_with_itself_is_that_of_its_trainings():
    # OURS: both trainings rank alike. THEIRS: 0.6 0.7 0.5 0.2 0.1 and 0.6 0.9 0.5 0.4 0.1 rank alike, too.
    assert rank_agreement(scores(OURS), scores(THEIRS)).itself == pytest.approx((1, 1))
    noisy = {"a": [0.9, 0.1], "b": [0.5, 0.5], "c": [0.1, 0.9]}
    found = rank_agreement(scores(noisy), scores(OURS))
    assert found is None  # every mean is 0.5
    noisy = {"a": [0.9, 0.2], "b": [0.5, 0.5], "c": [0.1, 0.8]}
    assert rank_agreement(scores(noisy), scores(OURS)).itself[0] == pytest.approx(-1)
    alone = {name: values[:1] for name, values in OURS.items()}
    assert rank_agreement(scores(alone), scores(OURS)).itself[0] is None


def test_only_common_tasks_and_complete_methods_count():
    more = [*scores(OURS), *scores({"a": [0.0], "b": [1.0]}, "elsewhere"), Score("z", "f", "t", "z0", 0.95)]
    assert rank_agreement(more, scores(THEIRS)).correlation == pytest.approx(0.9)
    both = [*scores(OURS), *scores({"a": [0.1], "b": [0.9], "c": [0.2]}, "u")]  # means 0.475 0.8 0.35
    theirs = [*scores(THEIRS), *scores({"a": [0.1], "b": [0.9], "c": [0.3]}, "u")]  # means 0.35 0.85 0.4
    found = rank_agreement(both, theirs)
    assert (found.methods, found.tasks) == (3, 2) and found.low is None
    assert found.correlation == pytest.approx(0.5)  # ranks 2 1 3 and 3 1 2: 1 - 6 * 2 / (3 * 8)
    assert rank_agreement(scores({"a": [1.0], "b": [0.0]}), scores(OURS)) is None


@pytest.fixture
def table():
    return read_table(CONF / "table/glue_small.yaml")


def runs(table, values: dict[str, float], scale: str) -> list:
    found = []
    for column in table.columns:
        primary = yaml.safe_load((CONF / f"task/{column.task}.yaml").read_text())["primary"]
        for method, score in values.items():
            spec = {"task": {"primary": primary, "family": "glue"}}
            changes = {"metrics": {primary: score}, "metrics_before": {primary: 0.0}}
            found += [
                record(method, seed, score, scale=scale, spec=spec, task=column.task, **changes) for seed in range(2)
            ]
    return found


def test_the_table_has_a_line_a_task_and_their_mean(table):
    pocket = {"full": 0.9, "lora": 0.8, "eva": 0.7, "pissa": 0.5}
    small = {"full": 0.8, "lora": 0.9, "eva": 0.7, "pissa": 0.5}
    built = build_agreement(table, Archive([*runs(table, pocket, "pocket"), *runs(table, small, "small")]))
    assert built.file == "glue_small-agreement-pocket-small"
    assert [line.title for line in built.lines] == ["CoLA", "SST2", "MRPC", "STS-B", "RTE", "mean of 5 tasks"]
    # 1 - 6 * 2 / (4 * 15) = 0.8
    assert {line.cells[0].text.split(" ")[0] for line in built.lines} == {"0.80"}
    assert [cell.text for cell in built.lines[0].cells[1:]] == ["4", "1.00", "1.00"]


def test_a_task_that_tells_little_at_one_scale_is_in_and_says_so(table):
    noise = {name: 0.5 + 0.03 * i for i, name in enumerate(table.methods)}
    pocket = runs(table, noise, "pocket")
    for run in pocket:
        if run.task == "glue/rte":
            run.metrics["accuracy"] = 0.99 + 0.01 * noise[run.method] / 10
    built = build_agreement(table, Archive([*pocket, *runs(table, noise, "small")]))
    titles = [line.title for line in built.lines]
    assert titles == ["CoLA", "SST2", "MRPC", "STS-B", "RTE (tells little at pocket)", "mean of 5 tasks"]


def test_the_figure_has_a_panel_a_task_with_every_method_at_its_two_means(table):
    pocket = {"full": 0.9, "lora": 0.8, "eva": 0.7, "pissa": 0.5}
    small = {"full": 0.8, "lora": 0.9, "eva": 0.7, "pissa": 0.4}
    records = [*runs(table, pocket, "pocket"), *runs(table, small, "small")]
    drawing = draw_agreement(Archive(records), table)
    panels = [ax for ax in drawing.figure.axes if ax.get_visible()]
    assert drawing.name == "glue_small-agreement-pocket-small" and len(panels) == 5
    for ax, line in zip(panels, build_agreement(table, Archive(records)).lines, strict=False):
        assert ax.get_title() == f"{line.title}: {line.cells[0].text}"
        drawn = {bars.get_label(): bars.lines[0].get_xydata()[0].tolist() for bars in ax.containers}
        assert drawn == {name: pytest.approx([100 * pocket[name], 100 * small[name]]) for name in pocket}


def test_no_table_where_one_scale_has_no_runs(table):
    alone = Archive(runs(table, {"lora": 0.5, "eva": 0.6, "full": 0.7}, "pocket"))
    assert build_agreement(table, alone) is None and draw_agreement(alone, table) is None
    assert build_agreement(table.model_copy(update={"agreement": None}), Archive([])) is None
