"""Figures from made-up records: every kind, the same bytes every time, no torch."""

from __future__ import annotations

import subprocess
import sys

from eva_bench.records.store import Store
from eva_bench.reporting.figures import main
from eva_bench.reporting.figures.layer_maps import draw_maps, kind_and_depth
from tests.conftest import ROOT
from tests.records import record


def store_of(folder, records):
    store = Store(folder)
    store.check_writable()
    for each in records:
        store.write(each)


def test_a_layer_has_a_depth_and_a_kind():
    assert kind_and_depth("model.layers.3.self_attn.q_proj") == ("self_attn.q_proj", 3)
    assert kind_and_depth("blocks.11.mlp.fc1") == ("mlp.fc1", 11) and kind_and_depth("0.fc") == ("fc", 0)
    assert kind_and_depth("lm_head") == ("lm_head", -1) and kind_and_depth("model.classifier.dense") == ("dense", -1)


def test_a_map_shows_the_mean_over_runs_at_the_layers_place():
    figure = draw_maps(
        {"a": [{"l.0.q": 2, "l.1.q": 4, "head": 1}, {"l.0.q": 4, "l.1.q": 4, "head": 1}, {}], "empty": [{}]}, "rank"
    )
    image = figure.axes[0].images[0]
    assert image.get_array().filled(-1).tolist() == [[3, 4, -1], [-1, -1, 1]]
    assert [tick.get_text() for tick in figure.axes[0].get_yticklabels()] == ["q", "head"]
    assert draw_maps({"a": [{}]}, "rank") is None


def test_all_figures_twice_the_same_without_torch(tmp_path):
    explained = {"explained_variance": {f"layers.{i}.q_proj": 0.5 for i in range(2)}}
    records = [
        record(m, s, 0.5 + s / 10, initialisation=explained if m == "eva" else {})
        for m in ("lora", "eva")
        for s in range(2)
    ]
    records.append(record("svfit", 0, 0.4, curve=[]))  # nothing to draw, one seed
    store_of(tmp_path, records)
    code = (
        "import sys; from eva_bench.reporting.figures import main; code = main(sys.argv[1:]); "
        "sys.exit(9 if 'torch' in sys.modules else code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, f"results_dir={tmp_path}"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    written = {path.name: path.read_bytes() for path in (tmp_path / "figures").iterdir()}
    kinds = (
        "differences-pocket",
        "pareto-pocket",
        "costs-pocket",
        "curves-pocket-math",
        "ranks-pocket-math",
        "variance-pocket-math",
    )
    assert set(written) == {f"{kind}.{suffix}" for kind in kinds for suffix in ("svg", "pdf")}
    assert b"svfit" in written["pareto-pocket.svg"] and b"svfit" not in written["curves-pocket-math.svg"]
    (tmp_path / "figures" / "gone.svg").write_text("a figure that no longer exists")
    assert main([f"results_dir={tmp_path}"]) == 0
    assert {path.name: path.read_bytes() for path in (tmp_path / "figures").iterdir()} == written


def test_no_records_at_all_is_no_error(tmp_path, capsys):
    assert main([f"results_dir={tmp_path}"]) == 0
    assert "no figures" in capsys.readouterr().out
