"""Files and folders that are not what they should be: one clear sentence, exit code 2, no traceback, nothing lost."""

from __future__ import annotations

import json
import shutil

import pytest
import yaml

from eva_bench.run import pipeline
from eva_bench.run.cell import run_cell
from eva_bench.settings.compose import compose_spec
from eva_bench.system.errors import UserError
from pocket.datasets import gsm8k
from tests.e2e.conftest import write_gsm8k


def test_a_task_without_a_stand_in_needs_rows_or_another_scale(command, own_conf, places):
    values = yaml.safe_load((own_conf / "task/glue/rte.yaml").read_text())
    del values["pocket"]
    (own_conf / "task/own.yaml").write_text(yaml.safe_dump(values | {"name": "own"}))
    code, _, err = command("method=lora", "task=own", *places)
    assert code == 2 and "error: Task 'own' has no generated stand-in (`pocket` in conf/task/own.yaml): give its" in err
    code, _, err = command("method=lora", "task=own", "scale=lite", *places)
    assert code == 2 and "make fetch DATA=nyu-mll/glue/rte" in err


@pytest.mark.parametrize(
    ("file", "line", "expected"),
    [
        ("method/lora.yaml", "rnak: 3", "unknown key 'rnak'"),
        ("task/gsm8k.yaml", "primry: accuracy", "unknown key 'primry'"),
        ("model/smollm2_135m.yaml", "targetz: [q_proj]", "targetz"),
        ("recipe/pocket/math.yaml", "trian: {lr: 1}", "trian"),
        ("recipe/pocket/math.yaml", "seed: first", "first"),
        ("scale/pocket.yaml", "tilte: x", "tilte"),
    ],
)
def test_misspelt_keys_inside_a_yaml(file, line, expected, own_conf, small_run, places):
    with (own_conf / file).open("a") as yaml_file:
        yaml_file.write(f"\n{line}\n")
    with pytest.raises(UserError) as refusal:
        run_cell(compose_spec(["method=lora", "task=gsm8k", "model=smollm2_135m", *small_run, *places]))
    assert expected in str(refusal.value) and file.split("/")[0] in str(refusal.value)


def test_a_yaml_that_is_no_yaml(own_conf):
    (own_conf / "method/lora.yaml").write_text("rank: [3\n")
    with pytest.raises(UserError, match=r"lora.yaml is not valid YAML: .* in line 2"):
        compose_spec(["method=lora", "task=gsm8k"])


@pytest.mark.parametrize(
    ("file", "content", "expected"),
    [
        ("suite/smoke.yaml", "", "conf/suite/smoke.yaml: grids must be a list"),
        ("suite/smoke.yaml", "title: x", "conf/suite/smoke.yaml: grids must be a list"),
        ("suite/smoke.yaml", "grids: 3", "conf/suite/smoke.yaml: grids must be a list"),
        ("suite/smoke.yaml", "- a", "smoke.yaml is not a mapping"),
        ("suite/smoke.yaml", "grids: [", "smoke.yaml is not valid YAML"),
        ("site.yaml", "launcher: [", "site.yaml is not valid YAML"),
        ("site.yaml", "3", "site.yaml is not a mapping"),
        ("site.yaml", "launcher: gpu", "site.yaml: launcher has no settings"),
    ],
)
def test_files_of_a_sweep_that_are_broken(file, content, expected, own_conf, refused):
    (own_conf / file).write_text(content)
    assert expected in refused("suite=smoke")


def test_model_path_that_is_not_there_or_no_checkpoint(refused, tmp_path):
    assert f"model.path={tmp_path / 'nowhere'} is not a folder" in refused(f"model.path={tmp_path / 'nowhere'}")
    (tmp_path / "empty").mkdir()
    assert "no config.json" in refused(f"model.path={tmp_path / 'empty'}")


@pytest.mark.parametrize("damage", ["no weights", "truncated weights", "config is no JSON", "unknown model type",
                                    "no tokenizer", "weights of another shape", "a tensor is missing"])  # fmt: skip
def test_broken_checkpoints(damage, checkpoint, refused, tmp_path):
    folder = tmp_path / "broken"
    shutil.copytree(checkpoint("smollm2_135m"), folder)
    config, weights = folder / "config.json", folder / "model.safetensors"
    match damage:
        case "no weights":
            weights.unlink()
        case "truncated weights":
            weights.write_bytes(weights.read_bytes()[:5000])
        case "config is no JSON":
            config.write_text("{nonsense")
        case "unknown model type":
            config.write_text('{"model_type": "lama"}')
        case "no tokenizer":
            (folder / "tokenizer.json").unlink()
        case "weights of another shape":
            config.write_text(json.dumps(json.loads(config.read_text()) | {"intermediate_size": 52}))
        case "a tensor is missing":
            from safetensors.torch import load_file, save_file

            tensors = load_file(weights)
            del tensors["model.layers.1.mlp.up_proj.weight"]
            save_file(tensors, weights, {"format": "pt"})
    assert "broken" in refused(f"model.path={folder}", loads=True)


def test_a_model_that_is_not_here_names_the_command_that_gets_it(command, mirror, places):
    code, _, err = command("method=lora", "task=gsm8k", "scale=paper", f"data.root={mirror}", *places)
    assert (
        code == 2 and "meta-llama/Llama-2-7b-hf is not on this machine" in err and "make fetch MODEL=llama2_7b" in err
    )


def test_data_root_without_the_data_set_names_the_command_that_gets_it(refused, tmp_path):
    sentence = refused(f"data.root={tmp_path}")
    assert "openai/gsm8k" in sentence and "make fetch DATA=openai/gsm8k" in sentence
    assert "make fetch DATA=meta-math/MetaMathQA" in refused(f"data.root={tmp_path}", "scale=paper")


def test_a_damaged_data_file_is_named(refused, tmp_path):
    rows = gsm8k.generate("train", 8)
    write_gsm8k(tmp_path / "hub", rows, rows)
    (tmp_path / "hub/openai/gsm8k/main/train-00000-of-00001.parquet").write_bytes(b"PAR1 nonsense")
    assert "train-00000-of-00001.parquet of data set 'openai/gsm8k'" in refused(
        f"data.root={tmp_path / 'hub'}", loads=True
    )


@pytest.mark.parametrize("column", ["question", "answer"])
def test_numbers_where_text_is_needed(column, refused, tmp_path):
    rows = [row | {column: i} for i, row in enumerate(gsm8k.generate("train", 8))]
    write_gsm8k(tmp_path / "hub", rows, gsm8k.generate("test", 4))
    sentence = refused(f"data.root={tmp_path / 'hub'}", loads=True)
    assert f"Column '{column}' of 'openai/gsm8k' holds int, not text: row 0 has 0." in sentence


def test_a_column_that_its_owner_renamed_is_named(refused, tmp_path):
    rows = [{"problem": row["question"], "answer": row["answer"]} for row in gsm8k.generate("train", 8)]
    write_gsm8k(tmp_path / "hub", rows, rows)
    sentence = refused(f"data.root={tmp_path / 'hub'}", loads=True)
    assert "'openai/gsm8k' has no column 'question'; it has problem, answer." in sentence


def test_rows_without_an_answer_are_counted_and_named(refused, tmp_path):
    rows = gsm8k.generate("train", 8)
    rows[2]["answer"], rows[5]["answer"], rows[6]["question"] = "", "The answer was lost.", None
    write_gsm8k(tmp_path / "hub", rows, gsm8k.generate("test", 4))
    sentence = refused(f"data.root={tmp_path / 'hub'}", loads=True)
    assert "3 of 8 rows of 'openai/gsm8k' have no answer: rows 2, 5, 6" in sentence


def test_rows_of_the_test_split_without_an_answer_are_found_before_training(refused, tmp_path, monkeypatch):
    def no_training(*_, **__):
        raise AssertionError("training began before the test rows were checked")

    monkeypatch.setattr(pipeline.train, "fit", no_training)
    test = gsm8k.generate("test", 4)
    test[3]["answer"] = "?"
    write_gsm8k(tmp_path / "hub", gsm8k.generate("train", 8), test)
    assert "1 of 4 rows" in refused(f"data.root={tmp_path / 'hub'}", loads=True)


def test_a_results_folder_that_cannot_be_written(refused, tmp_path):
    (tmp_path / "taken").write_text("a file, not a folder")
    assert "results folder" in refused(f"results_dir={tmp_path / 'taken'}")
    assert "taken" in refused(f"results_dir={tmp_path / 'taken' / 'below'}")


def test_a_runs_folder_that_cannot_be_written(refused, tmp_path):
    (tmp_path / "taken").write_text("a file, not a folder")
    assert "runs" in refused(f"runs_dir={tmp_path / 'taken'}")


@pytest.mark.parametrize("launcher", [[], ["hydra/launcher=local"]], ids=["here", "local"])
@pytest.mark.parametrize("name", ["results", "runs"])
def test_folders_of_a_sweep_that_cannot_be_written(name, launcher, refused, tmp_path):
    (tmp_path / "taken").write_text("a file, not a folder")
    assert f"The {name} folder '{tmp_path / 'taken'}' cannot be written" in refused(
        "-m", *launcher, f"{name}_dir={tmp_path / 'taken'}"
    )
