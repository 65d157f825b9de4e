"""The page of what the paper's tables would take is what plans say today."""

from __future__ import annotations

import pytest

from eva_bench.run import plan
from eva_bench.run.plan_cost import Cost
from perf import page, paper_costs


def cost(training: float, evaluation: float) -> Cost:
    return Cost(
        parameters=1, trained=1, weights=1, optimiser=0, training=int(training * plan.GB), generation_cache=0,
        evaluation=int(evaluation * plan.GB), steps=1, tokens=1, flops=1,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("suite", "task", "count", "of_a_task"),
    [("math", "gsm8k", 2 * 21, 21), ("vtab1k", "vtab1k/dtd", 19 * 21, 21), ("commonsense", "commonsense", 21, 21)],
)
def test_cells_of_a_suite_are_its_combinations(suite, task, count, of_a_task):
    """Seven methods with three seeds."""
    found = paper_costs.cells(suite)
    assert found.total() == count and found[task] == of_a_task


def test_training_and_evaluation_each_get_the_first_settings_that_fit():
    rungs = [cost(60, 110), cost(50, 40), cost(45, 30), cost(20, 15)]
    assert paper_costs.recipe_for(80e9, rungs.__getitem__) == "`eval.batch_size=8`"
    assert paper_costs.recipe_for(60e9, rungs.__getitem__) == "`train.micro_batch_size=1` `eval.batch_size=8`"
    both = "`train.micro_batch_size=1` `train.gradient_checkpointing=true`"
    lowest = f"{both} `eval.batch_size=1` `model.dtype=bfloat16`"
    assert paper_costs.recipe_for(45e9, rungs.__getitem__) == lowest  # training needs other weights: answers too
    assert paper_costs.recipe_for(16e9, rungs.__getitem__) == "none of these"
    assert paper_costs.recipe_for(200e9, rungs.__getitem__) == "as it is"


def test_the_page_is_what_the_command_writes():
    """Word for word but for the large models, which take longer to plan than a test may: these have their rows."""
    text = paper_costs.PAGE.read_text(encoding="utf-8")
    assert text.startswith(paper_costs.HEAD) and paper_costs.MIDDLE in text
    (table,) = (table for table in paper_costs.TABLES if table.suite == "metaworld")
    for row in (paper_costs.need(table, *table.models), paper_costs.note(table, *table.models)):
        assert set(page.table([row])) <= set(text.splitlines())
    for table in paper_costs.TABLES:
        for model in table.models:
            name = paper_costs.settings_of(table, table.trainings[0][0], model).model.name
            assert f"\n| {table.title} | {name} (" in text and f"\n| {name} | " in text
