"""Everything a user can get wrong: one clear sentence, exit code 2, no traceback, nothing expensive, nothing lost."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from eva_bench import models
from eva_bench.records.store import Store
from eva_bench.reporting import tables
from eva_bench.run import pipeline
from eva_bench.run.cell import run_cell
from eva_bench.settings.compose import compose_spec
from eva_bench.system import paths
from eva_bench.system.errors import UserError
from pocket.datasets import gsm8k
from tasks.gsm8k import GSM8K
from tests.conftest import CONF, ROOT
from tests.e2e.conftest import SHORT_RUN, write_gsm8k


@pytest.fixture
def refused(command, small_run, places, tmp_path, monkeypatch):
    """Run with the given arguments; the one sentence of the refusal, after checking its form."""

    def no_weights(*_):
        raise AssertionError("weights were loaded before the mistake was noticed")

    def call(*arguments: str, usual: bool = True, loads: bool = False) -> str:
        if not loads:
            monkeypatch.setattr(models, "load", no_weights)
        start = ["method=lora", "task=gsm8k", *small_run] if usual else [*small_run]
        code, out, err = command(*start, *places, *arguments)
        assert code == 2, err
        assert "Traceback" not in out + err
        lines = [line for line in err.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1 and len(lines[0]) < 600
        assert err.splitlines()[-1] == lines[0] and "Error executing job" not in err
        assert not list((tmp_path / "results").rglob("*.json"))
        return lines[0]

    return call


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("method=lroa",), ("Unknown method 'lroa'", "Did you mean 'lora'", "pissa")),
        (("task=gsmk8",), ("Unknown task 'gsmk8'", "Did you mean 'gsm8k'")),
        (("task=glu",), ("Unknown task 'glu'", "Did you mean 'glue'")),
        (("methd=eva",), ("Unknown setting 'methd'", "Did you mean 'method'")),
        (("scale=papr",), ("Unknown scale 'papr'", "Did you mean 'paper'", "pocket")),
        (("model=llama2",), ("Unknown model 'llama2'", "Did you mean 'llama2_7b'")),
        (("train.lrr=1",), ("train.lrr", "command line", "Did you mean 'train.lr'")),
        (("method.rnak=4",), ("method.rnak", "Did you mean 'method.rank'")),
        (("trian.lr=1",), ("trian.lr", "Did you mean 'train.lr'")),
        (("+train.lrr=1",), ("train.lrr", "Did you mean 'train.lr'")),
        (("+rnak=1",), ("Unknown setting 'rnak'",)),
        (("~train.lr",), ("cannot be removed",)),
        (("+method.rnak=4",), ("method", "unknown key 'rnak'")),
        (("+task.primry=x",), ("task", "unknown key 'primry'")),
        (("train.lr=fast",), ("train.lr", "fast")),
        (("train.steps=2.5",), ("train.steps", "2.5")),
        (("seed=one",), ("seed", "one")),
        (("method.rank=four",), ("method", "rank='four'")),
        (("method.init=zeros",), ("init='zeros'", "kaiming")),
        (("train.lr",), ("train.lr", "name=value")),
        (("train.schedule=cosin",), ("train.schedule=cosin", "cosine")),
        (("stage=test",), ("stage=test", "tune, final")),
        (("train.lr=-1",), ("train.lr=-1", "greater than 0")),
        (("train.batch_size=5",), ("train.batch_size=5", "train.micro_batch_size=2")),
        (("train.steps=null",), ("train.steps or train.epochs",)),
        (("train.steps=0",), ("train.steps=0", "greater than 0")),
        (("eval.limit=0",), ("eval.limit=0", "greater than 0")),
        (("adapter.rank=0",), ("adapter.rank=0", "greater than 0")),
        (("method.rank=0",), ("rank", "0")),
        (
            ("adapter.rank=33",),
            ("rank 33 is larger than layer 'model.layers.0.self_attn.q_proj' (32x32)", "at most 32"),
        ),
        (("method=svfit", "adapter.magnitude=true"), ("adapter.magnitude does not go together with method=svfit",)),
        (("method=full", "adapter.scaling=rslora"), ("adapter.scaling does not go together with method=full",)),
        (("method=sorsa", "adapter.scaling=rslora"), ("method=sorsa has method.alpha=null",)),
        (("adapter.scaling=rs",), ("adapter.scaling=rs",)),
        (("method=orthogonal", "adapter.rank=3"), ("rank 3 is odd",)),
        (("method=lora_ga", "adapter.rank=12"), ("takes 24 directions from a gradient at rank 12",)),
        (("method=adalora", "method.final_ratio=0.9"), ("leave no steps",)),
        (("model.targets=[q_prj]",), ("model.targets: q_prj matches no linear layer", "q_proj")),
        (("model.targets=[]",), ("model.targets is empty", "q_proj")),
        (("model.targets=[norm]",), ("norm matches no linear layer",)),
        (("model.kind=langage",), ("model.kind=langage",)),
        (("tracking.mode=onlin",), ("tracking.mode=onlin", "offline")),
        (("threads=0",), ("threads=0", "greater than 0")),
        (("eval.chunk=0",), ("chunk=0", "greater than 0")),
        (("data.max_length=1",), ("data.max_length=1",)),
        (("stage=tune", "data.holdout=40"), ("data.holdout", "39")),
        (("method=eva.yaml",), ("Unknown method 'eva.yaml'", "Did you mean")),
        (("method=../method/eva",), ("Unknown method '../method/eva'",)),
        (("method=[eva,lora]",), ("a run has one method", "-m method=eva,lora")),
        (("method=eva,lora",), ("'method=eva,lora' gives several values: add -m",)),
        (("train.lr=1e-3,2e-3",), ("'train.lr=1e-3,2e-3' gives several values: add -m",)),
        (("train.lr=(",), ("train.lr=(", "name=value")),
        (('train.lr="',), ('train.lr="', "name=value")),
        (("train.lr=${nosuch}",), ("train.lr refers to 'nosuch'",)),
        (("model.path=",), ("model.path is empty",)),
        (("results_dir=",), ("results_dir is empty",)),
        (("runs_dir=",), ("runs_dir is empty",)),
        (("task.harness=nosuch",), ("Unknown task.harness 'nosuch'", "gsm8k")),
        (("task.harness=gsm8",), ("Did you mean 'gsm8k'",)),
        (("method._target_=os.system",), ("method._target_=os.system is the class of no method",)),
        (("task._target_=baselines.lora.LoRA",), ("task._target_=baselines.lora.LoRA is the class of no task",)),
        (("task.primary=nosuch",), ("task.primary=nosuch is no metric of gsm8k", "exact_match_strict")),
        (("eval.max_new_tokens=100000000",), ("eval.max_new_tokens=100000000 must be below the", "positions")),
        (("threads=100000",), ("threads=100000 must be at most 1024",)),
        (("train.warmup_ratio=5",), ("train.warmup_ratio=5", "at most 1")),
        (("train.clip_norm=0",), ("train.clip_norm=0", "greater than 0")),
        (("train.clip_norm=-1",), ("train.clip_norm=-1", "greater than 0")),
        (("adapter.alpha=0",), ("adapter.alpha=0", "greater than 0")),
        (("adapter.rank=nan",), ("adapter.rank=nan",)),
        *(
            ((f"{name}={value}",), (f"{name}={value} must be a finite number",))
            for value in ("nan", "inf")
            for name in (
                "train.lr",
                "train.lr_ratio",
                "train.epochs",
                "train.warmup_ratio",
                "train.weight_decay",
                "train.clip_norm",
                "adapter.alpha",
            )
        ),
        (("method=eva", "method.rho=1e308"), ("method.rho=1e+308 must be between 1 and 1e+06",)),
        (("method=eva", "method.rho=0.5"), ("method.rho=0.5 must be between 1",)),
        (("method=eva", "method.columns=-5"), ("columns=-5 must be greater than 0",)),
        (("method=eva", "method.tau=-1"), ("tau=-1.0 must be greater than 0",)),
        (("method=eva", "method.max_batches=0"), ("max_batches=0 must be greater than 0",)),
        *(
            (("method=eva", f"method.{name}=nan"), (f"method.{name}=nan must be a finite number",))
            for name in ("rho", "tolerance", "tau")
        ),
        (("suite=smoke", "dry_run=maybe"), ("'dry_run=maybe' is neither true nor false",)),
        (("suite=../suite/smoke",), ("Unknown suite '../suite/smoke'", "Did you mean 'smoke'")),
        (("-m", "hydra/launcher=local", "hydra.launcher.processes=0"), ("hydra.launcher.processes=0",)),
        (("-m", "hydra/launcher=local", "hydra.launcher.processes=abc"), ("hydra.launcher.processes=abc",)),
        (("-m", "hydra/launcher=local", "hydra.launcher.processes=-1"), ("hydra.launcher.processes=-1",)),
        (("-m", "pack.pocket=abc"), ("pack.pocket=abc must be a whole number",)),
        (("-m", "pack=3"), ("pack=3 names no scale",)),
        (("data.train=openai/gsm8",), ("openai/gsm8'", "Did you mean 'openai/gsm8k'")),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, tuple) and "=" in value[0] else None,
)
def test_mistakes_in_values(arguments, expected, refused):
    sentence = refused(*arguments, loads=arguments[0].startswith(("stage=tune", "data.max_length", "task.primary")))
    for part in expected:
        assert part in sentence


def test_a_missing_choice_names_the_known_ones(refused):
    assert "Unknown setting 'methd' on the command line. Did you mean 'method'" in refused("methd=eva", usual=False)
    assert "No suite was chosen: add suite=<name>" in refused("suite=", usual=False)
    assert "method=<name>" in refused("task=gsm8k", usual=False)
    assert "gsm8k" in refused("method=lora", usual=False)


def test_a_task_without_a_stand_in_needs_rows_or_another_scale(command, own_conf, places):
    values = yaml.safe_load((own_conf / "task/glue/rte.yaml").read_text())
    del values["pocket"]
    (own_conf / "task/own.yaml").write_text(yaml.safe_dump(values | {"name": "own"}))
    code, _, err = command("method=lora", "task=own", *places)
    assert code == 2 and "error: Task 'own' has no generated stand-in (`pocket` in conf/task/own.yaml): give its" in err
    code, _, err = command("method=lora", "task=own", "scale=lite", *places)
    assert code == 2 and "make fetch DATA=nyu-mll/glue/rte" in err


def test_a_typo_anywhere_in_a_sweep_stops_it_before_its_first_cell(refused):
    assert "Unknown method 'lroa'" in refused("-m", "method=pissa,lroa", "seed=0,1")


@pytest.fixture
def own_conf(tmp_path, monkeypatch) -> Path:
    """A copy of conf/ that a test may spoil."""
    folder = tmp_path / "conf"
    shutil.copytree(CONF, folder)
    monkeypatch.setattr(paths, "CONF", folder)
    return folder


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


@pytest.mark.parametrize("value", ["on", "yes", "1", "True"])
def test_a_dry_run_by_any_word_for_true_runs_nothing(value, command, small_run, places, monkeypatch):
    monkeypatch.setattr(pipeline, "execute", None)
    code, out, _ = command("-m", "method=lora", "task=gsm8k", *small_run, *places, f"dry_run={value}")
    assert code == 0 and "Nothing was run" in out


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


def test_a_corrupt_record_is_reported_skipped_and_kept(command, small_run, places, tmp_path, capfd):
    records = tmp_path / "results/records"
    records.mkdir(parents=True)
    (records / "gsm8k-lora-pocket-s0-0000000000.json").write_text('{"schema_version": 1, "run_id"')
    code, out, _ = command("method=lora", "task=gsm8k", *small_run, *places)
    assert code == 0 and "OK" in out
    store = Store(tmp_path / "results")
    spec = next(record.spec for record in store.read_all())
    assert tables.main([f"results_dir={tmp_path / 'results'}"]) == 0
    assert "0000000000.json is not a readable record and is skipped" in capfd.readouterr().err

    own = store.path(spec)  # now the record of the very run is damaged: it is run again, the file kept
    own.write_text(own.read_text()[:200])
    code, out, err = command("method=lora", "task=gsm8k", *small_run, *places)
    assert code == 0 and "is not a readable record" in err and store.read(spec).status == "ok"
    assert [len(file.read_text()) for file in store.superseded.glob("*")] == [200]


@pytest.mark.parametrize("step", [1, 2])
def test_a_loss_that_is_not_finite_gives_a_failed_record_with_the_step(
    step, command, small_run, places, tmp_path, monkeypatch
):
    true_loss, calls = GSM8K.loss, []

    def loss(self, module, batch):
        value, count = true_loss(self, module, batch)
        if module.training:
            calls.append(1)
        return (value * float("nan") if len(calls) == 2 * step - 1 else value), count  # two micro batches a step

    monkeypatch.setattr(GSM8K, "loss", loss)
    code, out, err = command("method=lora", "task=gsm8k", *small_run, *places)
    assert code == 1 and "FAILED" in out and "Traceback" not in out + err
    (record,) = Store(tmp_path / "results").read_all()
    assert record.status == "failed" and f"nan at step {step}" in record.error and record.steps == step - 1
    monkeypatch.setattr(GSM8K, "loss", true_loss)
    assert command("method=lora", "task=gsm8k", *small_run, *places)[0] == 0  # a failure does not stand in the way
    assert [record.status for record in Store(tmp_path / "results").read_all()] == ["ok"]


def test_weights_that_blow_up_in_the_last_step_are_a_failure_too(command, small_run, places, tmp_path):
    code, *_ = command(
        "method=lora", "task=gsm8k", *small_run, *places, "train.lr=1e38", "train.schedule=constant", "train.steps=1"
    )
    assert code == 1
    (record,) = Store(tmp_path / "results").read_all()
    assert record.status == "failed" and "1 steps" in record.error


def test_the_command_itself_prints_one_sentence_and_is_quick(tmp_path):
    arguments = ["method=lroa", "task=gsm8k", f"results_dir={tmp_path}", *SHORT_RUN]
    done = subprocess.run([sys.executable, "run.py", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("error: Unknown method 'lroa'.") and done.stderr.count("\n") == 1
