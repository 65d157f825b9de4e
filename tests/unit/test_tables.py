"""Tables from made-up records: numbers checked by hand, nothing mixed that does not belong together."""

from __future__ import annotations

import csv
import math
import re

import pytest

from eva_bench.reporting.archive import Archive, Run
from eva_bench.reporting.tables.build import build_table
from eva_bench.reporting.tables.cells import select
from eva_bench.reporting.tables.differences import build_differences
from eva_bench.reporting.tables.facts import FACTS
from eva_bench.reporting.tables.formats import to_latex, to_markdown
from eva_bench.reporting.tables.spec import TableSpec, read_table
from eva_bench.reporting.tables.summary import _collapsed, build_pairs, build_summary
from eva_bench.reporting.tables.table import Table
from eva_bench.reporting.tables.value import Value
from eva_bench.system.errors import UserError
from tests.conftest import CONF, ROOT
from tests.records import record

GSM8K = read_table(CONF / "table/gsm8k.yaml")
TWO_TASKS = TableSpec.model_validate({
    "name": "two", "title": "Two tasks", "methods": ["lora", "eva"],
    "columns": [
        {"task": "glue/cola", "metric": "matthews", "title": "CoLA"},
        {"task": "glue/rte", "metric": "accuracy", "title": "RTE"},
    ],
    "means": [{"title": "Average", "published": "Avg"}],
    "published": [{
        "title": "RoBERTa", "methods": {"lora": "LoRA"},
        "where": {"paper": "eva", "table": "Table 2", "model": "RoBERTa-Large"},
    }],
})  # fmt: skip
METRICS = {"exact_match_strict": 0.5, "exact_match_flexible": 0.5, "reference_loss": 1.0}


def table(records, spec=GSM8K, scale="pocket", model="pocket_language"):
    return build_table(spec, Archive(records), scale, model)


def row(built, method: str) -> dict[str, str]:
    (found,) = (line for line in built.lines if line.title == method)
    return dict(zip(built.header, [found.title, *(cell.text for cell in found.cells)], strict=True))


def bold(built, column: str) -> set[str]:
    index = built.header.index(column) - 1
    return {line.title for line in built.lines if line.cells[index].bold}


def test_mean_spread_and_n_by_hand():
    value = Value.of([0.5, 0.6, 0.7])
    assert (round(value.mean, 6), round(value.std, 6), value.n) == (0.6, 0.1, 3)
    assert Value.of([0.5]).std is None and Value.of([]) is None
    built = table([record("lora", seed, score) for seed, score in enumerate((0.50, 0.60, 0.73))])
    shown = row(built, "lora")
    assert shown["strict"] == "61.0 ± 11.5"  # mean of 50, 60, 73; squares 121 + 1 + 144 over 2: 11.53
    assert shown["loss"] == "1.390 ± 0.115" and shown["seeds"] == "3"
    assert shown["parameters"] == "1,000" and shown["learning rate"] == "0.001"
    assert row(built, "untrained")["strict"] == "2.0"


def test_what_was_not_run_is_shown_as_not_run_and_published_numbers_stand_beside():
    built = table([record("lora", 0, 0.5)])
    pissa = row(built, "pissa")
    assert pissa["strict"] == pissa["learning rate"] == "–" and pissa["seeds"] == "0"
    assert pissa["LLaMA-2-7B (PiSSA T2)"] == "53.22 ± 0.55"  # arXiv:2404.02948, table 2
    assert row(built, "lora")["LLaMA-2-7B (PiSSA T2)"] == "43.23 ± 0.64 (+6.8)"  # 50.0 - 43.23
    assert row(built, "svfit")["Llama-2-7B (EVA T8)"] == "–"
    assert any(
        note.startswith("3 of 27 cells measured. 1 records, protocol 1, commits aaaaaaaaaa") for note in built.notes
    )


def test_the_best_mean_of_a_column_is_bold_and_a_small_loss_is_good():
    built = table([record("lora", 0, 0.5), record("pissa", 0, 0.7), record("full", 0, 0.6)])
    line = next(line for line in to_markdown(built).splitlines() if line.startswith("| pissa"))
    assert line.count("**") == 6 and "**70.0**" in line and "**1.300**" in line
    assert to_markdown(built).count("**") == 6


def spread_out() -> list:
    scores = {"lora": (0.50, 0.52, 0.54), "eva": (0.70, 0.72, 0.74), "pissa": (0.51, 0.53, 0.55)}
    return [record(method, seed, score) for method, found in scores.items() for seed, score in enumerate(found)]


def further_tables(records) -> dict[str, Table]:
    selection = select(Archive(records), GSM8K, "pocket", "pocket_language")
    return {build.__name__: build(selection, None) for build in (build_differences, build_summary, build_pairs)}


def test_differences_have_dunnetts_intervals_and_are_bold_where_they_exclude_0():
    built = further_tables(spread_out())["build_differences"]
    # Pooled deviation 2 points, 6 degrees of freedom; Dunnett's two-sided 95 % value of two treatments is 2.86.
    half = 2.86 * 2 * (2 / 3) ** 0.5
    found = re.match(r"\+20.0 \[\+(.*), \+(.*)\]", row(built, "eva")["strict"])
    assert [float(end) for end in found.groups()] == pytest.approx([20 - half, 20 + half], abs=0.1)
    assert bold(built, "strict") == {"eva"} and "lora" not in [line.title for line in built.lines]
    assert "**+20.0 [" in to_markdown(built) and r"\textbf{+20.0 [" in to_latex(built)


def test_the_statistics_table_gives_difference_verdict_rank_and_honest_counts():
    tables = further_tables(spread_out())
    eva, pissa = (row(tables["build_summary"], method) for method in ("eva", "pissa"))
    assert eva["verdict"] == "different" and eva["difference to lora [95 %]"].startswith("+20.")
    assert eva["tasks"] == "1" and eva["trainings"] == "3"  # strict and flexible are two metrics of the same answers
    assert eva["mean rank"] == "1.00" and eva["won against lora"] == "1.00" and pissa["mean rank"] == "2.00"
    assert pissa["verdict"].startswith("undecided (about") and pissa["collapsed"] == "0"
    pair = row(tables["build_pairs"], "pissa")
    assert pair["eva"].endswith("different; won 0.00") and pair["pissa"] == "–"


def test_one_seed_has_no_interval_and_says_so():
    tables = further_tables([record("lora", 0, 0.5), record("eva", 0, 0.6)])
    assert row(tables["build_differences"], "eva")["strict"] == "+10.0"
    shown = row(tables["build_summary"], "eva")
    assert shown["verdict"] == "undecided (one seed: no interval)" and shown["bootstrap [95 %]"] == "–"
    assert shown["difference to lora [95 %]"] == "+10.0"


def test_a_failed_run_counts_as_the_lowest_score_of_its_task_and_is_reported():
    failed = record("eva", 3, 0.9, status="failed", metrics={})
    built = table([*spread_out(), failed])
    assert row(built, "eva")["strict"] == "54.5 ± 35.0"  # 70, 72, 74 and the untrained model's 2
    assert any("1 runs failed and count as the lowest score" in note and failed.run_id in note for note in built.notes)
    shown = row(further_tables([*spread_out(), failed])["build_summary"], "eva")
    assert shown["trainings"] == "4" and shown["collapsed"] == "1" and shown["mean"] == "54.5"


def test_a_new_method_finds_its_way_into_the_tables():
    built = table([*spread_out(), record("my_method", 0, 0.6)])
    assert built.lines[-1].title == "my_method" and row(built, "my_method")["strict"] == "60.0 (n=1)"
    private = record("mine", 0, 0.6, origins={"command_line": ["method=mine", "train.lr=1"]})
    assert "mine" not in [line.title for line in table([*spread_out(), private]).lines]


def test_private_experiments_other_stages_and_other_settings_are_set_aside():
    usual = record("lora", 0, 0.5)
    private = record("lora", 1, 0.9, origins={"command_line": ["method=lora", "task=gsm8k", "seed=1", "train.lr=1"]})
    tuned = record("lora", 2, 0.9, spec={"stage": "tune"})
    other = record("lora", 3, 0.9, status="failed", spec={"train": {"lr": 9.0}})
    old = record("lora", 4, 0.9, spec={"protocol": 0}, finished="2024-01-01T00:00:00+00:00")
    built = table([usual, private, tuned, other, old])
    assert row(built, "lora")["strict"] == "50.0" and row(built, "lora")["seeds"] == "1"
    assert any("1 records" in note and "set aside" in note for note in built.notes)


def test_one_table_never_mixes_protocols():
    built = table([record("lora", 0, 0.5), record("eva", 0, 0.6, spec={"protocol": 2})])
    assert row(built, "lora")["strict"] == "–" and row(built, "eva")["strict"] == "60.0"


def test_the_report_stays_with_a_protocol_until_the_next_covers_as_much():
    tuning = [record("lora", 0, 0.9, spec={"protocol": 4, "stage": "tune"})]
    old = [record("lora", 0, 0.5), record("eva", 0, 0.6)]
    archive = Archive([*old, *tuning])  # rates are chosen before there are results
    assert [run.protocol for run in archive.runs] == [old[0].spec.protocol] * 2 and archive.older == {"pocket": 1}
    results = [record(name, 0, 0.7, spec={"protocol": 4}) for name in ("lora", "eva")]
    assert [run.score for run in Archive([*old, *tuning, *results[:1]]).runs] == [0.5, 0.6]
    assert [run.score for run in Archive([*old, *tuning, *results]).runs] == [0.9, 0.7, 0.7]
    seeds = [record("lora", seed, 0.7, spec={"protocol": 4}) for seed in range(5)]  # many runs, but of one cell
    assert [run.score for run in Archive([*old, *seeds]).runs] == [0.5, 0.6]
    second = [record(name, 0, 0.4, task="glue/rte") for name in ("lora", "eva")]  # the new one lacks this task
    assert len(Archive([*old, *second, *results, *seeds[1:]]).runs) == 4


def test_scales_and_models_never_share_a_cell():
    records = [
        record("lora", 0, 0.5),
        record("lora", 1, 0.9, scale="lite"),
        record("lora", 2, 0.7, spec={"model": {"name": "other"}, "identity": {"model": {"checkpoint": "other"}}}),
    ]
    assert row(table(records), "lora")["strict"] == "50.0"
    assert row(table(records, scale="lite"), "lora")["strict"] == "90.0"
    assert row(table(records, model="other"), "lora")["strict"] == "70.0"
    assert table(records, scale="paper") is None


def test_seconds_taken_from_a_cache_are_not_counted():
    computed, reused = record("lora", 0, 0.5), record("lora", 1, 0.5, reused={"init": True, "train": True})
    assert FACTS["train_seconds"](Run.of(computed)) == 10.0 and FACTS["train_seconds"](Run.of(reused)) is None


def glue(method, seed, task, score):
    metric = "matthews" if task == "cola" else "accuracy"
    return record(method, seed, score, task=f"glue/{task}", metrics={metric: score}, metrics_before={metric: 0.1})


def test_an_average_is_the_mean_of_its_tasks_means_and_says_what_it_covers():
    records = [
        glue("lora", 0, "cola", 0.5),
        glue("lora", 1, "cola", 0.6),
        glue("lora", 0, "rte", 0.7),
        glue("lora", 1, "rte", 0.9),
    ]
    built = table([*records, glue("eva", 0, "cola", 0.99)], TWO_TASKS)
    lora, eva = row(built, "lora"), row(built, "eva")
    assert lora["Average (2 tasks)"] == "67.5 ± 10.6"  # seed 0: 60, seed 1: 75
    assert eva["Average (2 tasks)"] == "99.0 (n=1) (1 of 2)" and eva["RTE"] == "–"
    assert bold(built, "Average (2 tasks)") == {"lora"}  # an average that lacks a task is none of the candidates
    assert bold(built, "CoLA") == {"eva"}
    assert row(built, "untrained")["Average (2 tasks)"] == "10.0"
    more = row(table([*records, glue("lora", 2, "cola", 0.0)], TWO_TASKS), "lora")
    assert more["Average (2 tasks)"] == "58.3 ± 10.6 (n=2)" and more["seeds"] == "2 to 3"  # CoLA 36.7, RTE 80


def test_published_numbers_of_several_tasks_get_lines_of_their_own():
    built = table([glue("lora", 0, "cola", 0.7), glue("lora", 0, "rte", 0.7)], TWO_TASKS)
    shown = row(built, "RoBERTa: LoRA")  # arXiv:2410.07170v5, table 2
    with (ROOT / "results/published/eva.csv").open(encoding="utf-8", newline="") as file:
        printed = {
            r["task"]: r
            for r in csv.DictReader(file)
            if (r["table"], r["model"], r["method"]) == ("Table 2", "RoBERTa-Large", "LoRA")
        }
    mean, std = float(printed["CoLA"]["value"]), float(printed["CoLA"]["std"])
    assert shown["CoLA"] == f"{printed['CoLA']['value']} ± {std:g} ({70 - mean:+.1f})"
    assert shown["Average (2 tasks)"].startswith(printed["Avg"]["value"])


def test_a_table_may_claim_runs_that_vary_a_setting_and_only_that_one():
    spec = TableSpec.model_validate({
        "name": "rank", "title": "Ranks", "methods": ["lora"], "vary": {"adapter.rank": [2, 8]},
        "columns": [{"task": "gsm8k", "metric": "exact_match_strict", "title": "strict"}],
    })  # fmt: skip
    line = ["method=lora", "seed=0", "adapter.rank=2"]
    small = record("lora", 0, 0.3, spec={"adapter": {"rank": 2}}, origins={"command_line": line})
    usual = record("lora", 0, 0.5, spec={"adapter": {"rank": 8}})
    other = record(
        "lora", 0, 0.9, spec={"adapter": {"rank": 8}}, origins={"command_line": ["train.lr=1"]}, run_id="other"
    )
    built = table([small, usual, other], spec)
    assert row(built, "lora, rank=2")["strict"] == "30.0" and row(built, "lora, rank=8")["strict"] == "50.0"
    assert row(table([small, usual]), "lora")["strict"] == "50.0"  # elsewhere the small rank is somebody's experiment


def test_a_task_may_have_settings_that_its_runs_must_have_in_every_row(tmp_path):
    path = tmp_path / "long.yaml"
    path.write_text(
        "title: Long\nmethods: [lora]\nsettings: {gsm8k: {train.steps: 1000}}\ncolumns:\n"
        "- {task: gsm8k, metric: exact_match_strict, title: strict}\n- {task: math, title: MATH}\n"
    )
    settings = {"origins": {"command_line": ["train.steps=1000"]}, "spec": {"train": {"steps": 1000}}}
    of_math = {"spec": {"task": {"name": "math"}}, "run_id": "math"}
    records = [
        record("lora", 0, 0.3),
        record("lora", 0, 0.9, run_id="long", **settings),
        record("lora", 0, 0.5, **of_math),
    ]
    line = row(table(records, read_table(path)), "lora")
    assert (line["strict"], line["MATH"]) == ("90.0", "50.0")
    assert row(table(records), "lora")["strict"] == "30.0"  # elsewhere the long run is an experiment
    path.write_text(path.read_text().replace("{gsm8k:", "{gsm8:"))
    with pytest.raises(UserError, match=r"long\.yaml: settings are given for 'gsm8', which no column shows.*'gsm8k'"):
        read_table(path)


def test_an_unknown_metric_fact_or_key_is_named_with_near_matches(tmp_path):
    spec = GSM8K.model_copy(update={"columns": [GSM8K.columns[0].model_copy(update={"metric": "exact_match_strickt"})]})
    with pytest.raises(UserError, match=r"gsm8k\.yaml: unknown metric 'exact_match_strickt'.*'exact_match_strict'"):
        table([record("lora", 0, 0.5)], spec)
    spec = GSM8K.model_copy(update={"columns": [GSM8K.columns[0].model_copy(update={"fact": "parameter"})]})
    with pytest.raises(UserError, match=r"unknown fact 'parameter'.*'parameters'"):
        table([record("lora", 0, 0.5)], spec)
    path = tmp_path / "bad.yaml"
    path.write_text("title: x\nmethods: [lora]\ncolumns: [{task: gsm8k, title: a, metrc: b}]\n")
    with pytest.raises(UserError, match=r"bad\.yaml: columns\.0\.metrc.*'metric'"):
        read_table(path)


def test_two_records_that_claim_one_cell_are_refused():
    with pytest.raises(UserError, match="Two records claim to be the run"):
        table([record("lora", 0, 0.5), record("lora", 0, 0.5)])
    with pytest.raises(UserError, match="Two records claim one cell: 'a' and 'b'"):
        table([record("lora", 0, 0.5, run_id="a"), record("lora", 0, 0.6, run_id="b")])


def test_a_reference_beside_the_methods_and_a_typo_in_it():
    spec = GSM8K.model_copy(update={"reference": "expert"})
    shown = table(
        [record("lora", seed, 0.5, metrics=METRICS | {"expert_exact_match_strict": 0.9}) for seed in (0, 1)], spec
    )
    assert row(shown, "expert")["strict"] == "90.0" and [line.title for line in shown.lines][:2] == [
        "untrained",
        "expert",
    ]
    with pytest.raises(UserError, match="no record has metrics of the reference 'expert'"):
        table([record("lora", 0, 0.5)], spec)


def test_collapsed_is_not_better_than_before_unless_before_was_perfect():
    def collapsed(before: float, after: float) -> bool:
        return _collapsed(Run.of(record("lora", 0, after, metrics_before={"exact_match_strict": before})))

    assert [collapsed(0.2, 0.1), collapsed(0.2, 0.2), collapsed(0.2, 0.3)] == [True, True, False]
    assert [collapsed(1.0, 1.0), collapsed(1.0, 0.9)] == [False, True]


@pytest.mark.parametrize(
    ("score", "last_loss", "more", "expected"),
    [
        (0.6, 0.3, {}, False),
        (0.5, 0.3, {}, True),  # the majority class
        (0.6, 0.68, {}, True),  # the loss of guessing its share: ln 2
        (0.6, 0.3, {"collapsed": 3}, True),  # one answer on three sets of the union
        (0.6, 0.3, {"collapsed": 0}, False),
    ],
)
def test_collapsed_is_no_better_than_the_best_constant_answer(score, last_loss, more, expected):
    metrics = {"exact_match_strict": score, "majority": 0.5, "constant_loss": math.log(2)} | more
    curve = [(step, 0.75 if step < 19 else last_loss, 1.0, 1e-3) for step in range(1, 21)]
    run = Run.of(record("lora", 0, score, metrics=metrics, curve=curve, metrics_before={"exact_match_strict": 0.7}))
    assert _collapsed(run) == expected
