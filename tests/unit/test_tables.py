"""Tables from made-up records: numbers checked by hand, nothing mixed that does not belong together."""

from __future__ import annotations

import subprocess
import sys

import pytest
import yaml

from eva_bench.errors import UserError
from eva_bench.record import Record
from eva_bench.store import Store
from eva_bench.tables import Value, build_table, main, to_latex, to_markdown, write_csv
from tests.conftest import CONF, ROOT

SPEC = {
    "stage": "final", "protocol": 1, "train": {"loss_on_prompt": False, "lr": 1e-3}, "model": {"name": "pocket_language"},
    "identity": {"model": {"checkpoint": "language", "sha256": "0"}, "data": {"name": "pocket/gsm8k", "sha256": "1"}},
}  # fmt: skip
GSM8K = yaml.safe_load((CONF / "table/gsm8k.yaml").read_text())


def record(method: str, seed: int, score: float, scale: str = "pocket", spec: dict | None = None, **changes) -> Record:
    metrics = {"exact_match_strict": score, "exact_match_flexible": score, "reference_loss": 2 - score, "samples": 400}
    values = {
        "run_id": f"{method}-{scale}-{seed}-{score}", "train_id": "t", "init_id": "i", "status": "ok", "scale": scale, "task": "gsm8k",
        "method": method, "seed": seed, "spec": SPEC | {"seed": seed, "method": {"name": method}} | (spec or {}), "metrics": metrics,
        "metrics_before": metrics | {"exact_match_strict": 0.02}, "trainable_parameters": 1000, "code": {"commit": "a" * 40},
        "costs": {"init": {"seconds": 1.0, "peak_bytes": 1}, "train": {"seconds": 10.0 + seed, "peak_bytes": 1}},
        "finished": "2025-01-01T00:00:00+00:00", "origins": {"command_line": [f"method={method}", "task=gsm8k", f"seed={seed}"]},
    }  # fmt: skip
    return Record(**(values | changes))


def table(records, spec=GSM8K, scale="pocket", model="pocket_language"):
    return build_table("gsm8k", spec, records, scale, model)


def row(built, method: str) -> dict[str, str]:
    (found,) = (cells for cells in built.rows if cells[0] == method)
    return dict(zip(built.header, found, strict=True))


def test_mean_spread_and_n_by_hand():
    value = Value.of([0.5, 0.6, 0.7])
    assert (round(value.mean, 6), round(value.std, 6), value.n) == (0.6, 0.1, 3)
    assert Value.of([0.5]).std is None and Value.of([]) is None
    built = table([record("lora", seed, score) for seed, score in enumerate((0.50, 0.60, 0.73))])
    shown = row(built, "lora")
    assert shown["strict"] == "61.0 ± 11.5"  # mean of 50, 60, 73; squares 121 + 1 + 144 over 2: 11.53
    assert shown["loss"] == "1.390 ± 0.115" and shown["seeds"] == "3"
    assert shown["parameters"] == "1,000" and shown["init s"] == "1.0" and shown["train s"] == "11.0"
    assert row(built, "untrained")["strict"] == "2.0"


def test_what_was_not_run_is_shown_as_not_run_and_published_numbers_stand_beside():
    built = table([record("lora", 0, 0.5)])
    pissa = row(built, "pissa")
    assert pissa["strict"] == pissa["train s"] == "–" and pissa["seeds"] == "0"
    assert pissa["LLaMA-2-7B (PiSSA T2)"] == "53.22 ± 0.55"  # arXiv:2404.02948, table 2
    assert row(built, "svfit")["Llama-2-7B (EVA T8)"] == "–"


def test_the_best_mean_of_a_column_is_bold_and_a_small_loss_is_good():
    built = table([record("lora", 0, 0.5), record("pissa", 0, 0.7), record("full", 0, 0.6)])
    line = next(line for line in to_markdown(built).splitlines() if line.startswith("| pissa"))
    assert line.count("**") == 6 and "**70.0**" in line and "**1.300**" in line
    assert to_markdown(built).count("**") == 6


def test_private_experiments_other_stages_failures_and_settings_are_set_aside():
    usual = record("lora", 0, 0.5)
    private = record("lora", 1, 0.9, origins={"command_line": ["method=lora", "task=gsm8k", "seed=1", "train.lr=1"]})
    tuned = record("lora", 2, 0.9, spec={"stage": "tune"})
    failed = record("lora", 3, 0.9, status="failed")
    old = record("lora", 4, 0.9, spec={"protocol": 0}, finished="2024-01-01T00:00:00+00:00")
    built = table([usual, private, tuned, failed, old])
    assert row(built, "lora")["strict"] == "50.0" and row(built, "lora")["seeds"] == "1"
    assert any("2 records" in note and "set aside" in note for note in built.notes)


def test_scales_and_models_never_share_a_cell():
    records = [record("lora", 0, 0.5), record("lora", 1, 0.9, scale="lite"), record("lora", 2, 0.7, spec={"model": {"name": "other"}})]
    assert row(table(records), "lora")["strict"] == "50.0"
    assert row(table(records, scale="lite"), "lora")["strict"] == "90.0"
    assert row(table(records, model="other"), "lora")["strict"] == "70.0"
    assert table(records, scale="paper") is None


def test_seconds_taken_from_a_cache_are_not_counted():
    computed, reused = record("lora", 0, 0.5), record("lora", 1, 0.5, reused={"init": True, "train": True})
    assert row(table([computed, reused]), "lora")["train s"] == "10.0"
    assert row(table([reused]), "lora")["train s"] == "–"


def test_an_unknown_metric_is_named_with_near_matches():
    spec = GSM8K | {"columns": [{"metric": "exact_match_strickt", "title": "x", "percent": True, "best": "max"}]}
    with pytest.raises(UserError, match=r"gsm8k\.yaml: unknown metric 'exact_match_strickt'.*'exact_match_strict'"):
        table([record("lora", 0, 0.5)], spec)


def test_a_published_number_that_is_not_in_the_csv_is_an_error():
    block = GSM8K["published"][0] | {"methods": {"lora": "LoRRA"}}
    with pytest.raises(UserError, match=r"eva.csv has no row for lora"):
        table([record("lora", 0, 0.5)], GSM8K | {"published": [block]})


def test_order_of_records_does_not_matter_and_all_formats_agree(tmp_path):
    records = [record(method, seed, 0.3 + seed / 10) for method in ("lora", "pissa") for seed in range(3)]
    first, second = table(records), table(records[::-1])
    assert to_markdown(first) == to_markdown(second) and to_latex(first) == to_latex(second)
    write_csv(first, tmp_path / "t.csv")
    assert (tmp_path / "t.csv").read_text().count("40.0 ± 10.0") == to_markdown(first).count("40.0 ± 10.0") >= 2
    assert r"40.0 $\pm$ 10.0" in to_latex(first) and "±" not in to_latex(first).split(r"\bottomrule")[0]


def test_make_tables_writes_every_format_twice_the_same_without_torch(tmp_path):
    store = Store(tmp_path)
    store.check_writable()
    for seed in range(2):
        store.write(record("lora", seed, 0.5))
    (store.records / "broken.json").write_text("{")
    code = "import sys; from eva_bench.tables import main; code = main(sys.argv[1:]); sys.exit(9 if 'torch' in sys.modules else code)"
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and "broken.json is not a readable record" in done.stderr
    written = {path.name: path.read_bytes() for path in (tmp_path / "tables").iterdir()}
    assert {name.rpartition(".")[2] for name in written} >= {"md", "csv", "tex"}
    assert main([str(tmp_path)]) == 0
    assert {path.name: path.read_bytes() for path in (tmp_path / "tables").iterdir()} == written


def test_no_records_at_all_is_no_error(tmp_path, capsys):
    assert main([str(tmp_path)]) == 0
    assert "no tables" in capsys.readouterr().out
