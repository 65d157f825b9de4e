"""Control as a user runs it: same command, same episodes; the paper's size; everything that can be wrong; a film."""

from __future__ import annotations

import json

import pytest

from eva_bench.assets import catalogue, identity
from eva_bench.records.record import load_record
from pocket.datasets import metaworld as generator
from pocket.pretrain.decision import SIZES
from tasks.control import environment
from tests.control import trajectories, write_decision, write_npz

SHORT = ["train.steps=2", "train.batch_size=8", "train.micro_batch_size=8", "calibration.batch_size=8", "eval.limit=2",
         "tracking=off", "threads=1"]  # fmt: skip


@pytest.fixture(autouse=True)
def few_episodes(monkeypatch, tmp_path_factory):
    """Three demonstrations and two episodes to be scored on, of this test session."""
    monkeypatch.setattr(generator, "FOLDER", tmp_path_factory.getbasetemp() / "demonstrations")
    monkeypatch.setattr(generator, "SIZES", {"train": 3, "validation": 2, "test": 2})
    caches = (generator.episodes, catalogue._generated, identity._generated_sha256)
    for cached in caches:
        cached.cache_clear()
    yield
    for cached in caches:
        cached.cache_clear()


@pytest.fixture
def tiny(tmp_path):
    return [f"model.path={write_decision(tmp_path / 'tiny')}", *SHORT]


@pytest.fixture
def paper_files(tmp_path):
    """A data root with one file in the paper's layout."""
    root = tmp_path / "hub"
    write_npz(root / "ml-jku/meta-world/2M/window-close-v2.npz", trajectories(2, 30))
    return root


def record_of(results) -> dict:
    (file,) = results.rglob("*.json")
    return load_record(file.read_text()).model_dump()


def test_same_command_same_episodes(command, tiny, tmp_path, short_episodes):
    played = []
    for attempt in ("a", "b"):
        places = [f"results_dir={tmp_path / attempt}/results", f"runs_dir={tmp_path / attempt}/runs"]
        code, _, err = command("method=eva", "task=metaworld/window-close", *tiny, *places)
        assert code == 0, err
        (samples,) = (tmp_path / attempt / "runs").glob("*/samples.jsonl")
        played.append((samples.read_bytes(), record_of(tmp_path / attempt / "results")["metrics"]))
    assert played[0] == played[1]
    samples = [json.loads(line) for line in played[0][0].splitlines()]
    assert [sample["seed"] for sample in samples] == [
        int(row["seed"]) for row in generator.generate("test", "window-close")
    ]
    metrics = played[0][1]
    assert metrics["expert_success"] == 1.0 and metrics["samples"] == 2  # the demonstrations are whole episodes
    assert {"success", "success_any", "return", "reference_loss"} <= set(metrics)


def test_two_updates_and_two_episodes_of_the_paper_s_size(command, paper_files, short_episodes, tmp_path, places):
    """The paper's recipe, model and file layout; episodes of 20 steps, because 200 take minutes without a GPU."""
    folder = write_decision(tmp_path / "paper", SIZES["paper"])
    code, _, err = command(
        "method=eva", "task=metaworld/window-close", "scale=paper", f"model.path={folder}", f"data.root={paper_files}",
        *SHORT, "train.precision=float32", "calibration.batch_size=4", "method.max_batches=4", *places,
    )  # fmt: skip
    assert code == 0, err
    record = record_of(tmp_path / "results")
    assert 13e6 < record["model"]["parameters"] < 14e6  # 12.61 M in the blocks
    assert record["steps"] == 2 and record["metrics"]["samples"] == 2
    assert set(record["ranks"]) >= {"action_head", "blocks.h.3.mlp.c_proj"} and len(record["ranks"]) == 17


def test_full_fine_tuning_leaves_a_model_that_can_be_trained_on(command, tiny, places, tmp_path, short_episodes):
    assert command("method=full", "task=metaworld/window-close", *tiny, *places)[0] == 0
    (model,) = (tmp_path / "runs").glob("*/model")
    code, _, err = command("method=lora", "task=metaworld/window-close", f"model.path={model}", *SHORT, *places)
    assert code == 0, err


@pytest.mark.parametrize("split", ["tune", "final"])
def test_tuning_scores_on_other_episodes(split, command, tiny, places, tmp_path, short_episodes):
    assert command("method=lora", "task=metaworld/window-close", f"stage={split}", *tiny, *places)[0] == 0
    (samples,) = (tmp_path / "runs").glob("*/samples.jsonl")
    seeds = [json.loads(line)["seed"] for line in samples.read_text().splitlines()]
    rows = generator.generate({"tune": "validation", "final": "test"}[split], "window-close")
    assert seeds == [int(row["seed"]) for row in rows]


def test_a_film_or_what_is_missing_for_one(command, tiny, places, tmp_path, short_episodes):
    from PIL import Image

    code, _, err = command("method=lora", "task=metaworld/window-close", "eval.record_video=true", *tiny, *places)
    assert code == 0, err
    films = list((tmp_path / "runs").glob("*/episode.gif"))
    if films:
        with Image.open(films[0]) as film:
            assert film.n_frames > 1 and film.size[0] > 100
            assert len(film.convert("L").getcolors()) > 5  # not a black picture
    else:
        assert "no animation:" in err and "MUJOCO_GL" in err


def refusal(command, places, *arguments: str) -> str:
    code, out, err = command("method=lora", *arguments, *places)
    assert code == 2, out + err
    assert "Traceback" not in out + err
    (line,) = [line for line in err.splitlines() if line.startswith("error: ")]
    return line


def test_an_unknown_task_names_near_ones(command, tiny, places):
    line = refusal(command, places, "task=metaworld/hamer", *tiny)
    assert "metaworld/hamer" in line and "metaworld/hammer" in line


@pytest.mark.parametrize("target", ["-3", "1e5"])
def test_a_target_beyond_the_data_is_refused(target, command, tiny, places):
    line = refusal(command, places, "task=metaworld/window-close", f"task.return_target={target}", *tiny)
    assert "return_target" in line and "training data" in line


def test_an_environment_that_cannot_be_created(command, tiny, places, monkeypatch):
    generator.generate("test", "window-close")

    def broken(name):
        raise RuntimeError("libGL is missing")

    monkeypatch.setattr(environment, "_seeded_class", broken)
    line = refusal(command, places, "task=metaworld/window-close", *tiny)
    assert "environment of 'window-close' cannot be created: libGL is missing" in line


def test_the_paper_s_file_is_not_there(command, tiny, places, tmp_path):
    (tmp_path / "hub").mkdir()
    line = refusal(command, places, "task=metaworld/window-close", f"data.root={tmp_path / 'hub'}", *tiny)
    assert "ml-jku/meta-world/2M/window-close-v2.npz is missing" in line and "make fetch DATA=" in line


@pytest.mark.parametrize(
    ("rows", "changes", "expected"),
    [
        (trajectories(2, 7), {"dones": None}, "has no array dones"),
        (trajectories(2, 7), {"actions": trajectories(2, 7)[0]["observations"]}, "actions has shape (7, 39)"),
        (trajectories(1, 0), {}, "trajectories are empty"),
        (trajectories(1, 300), {}, "more than the model's 200 steps"),
    ],
)
def test_bad_files(rows, changes, expected, command, tiny, places, tmp_path):
    write_npz(tmp_path / "hub/ml-jku/meta-world/2M/window-close-v2.npz", rows, **changes)
    line = refusal(command, places, "task=metaworld/window-close", f"data.root={tmp_path / 'hub'}", *tiny)
    assert expected in line


def test_a_checkpoint_of_another_kind(command, places, tmp_path):
    folder = write_decision(tmp_path / "broken")
    (folder / "config.json").write_text('{"hidden_size": 3}')
    line = refusal(command, places, "task=metaworld/window-close", f"model.path={folder}", *SHORT)
    assert "'broken' is no decision transformer" in line


def test_weights_that_are_not_released_name_the_way_to_make_them(command, places):
    line = refusal(command, places, "task=metaworld/window-close", "scale=lite", *SHORT)
    assert "decision_lite" in line
