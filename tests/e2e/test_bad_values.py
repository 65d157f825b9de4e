"""Everything a user can type wrong: one clear sentence, exit code 2, no traceback, nothing expensive, nothing lost."""

from __future__ import annotations

import subprocess
import sys

import pytest

from eva_bench.run import pipeline, scores
from tests.conftest import ROOT
from tests.e2e.conftest import SHORT_RUN


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("method=lroa",), ("Unknown method 'lroa'", "Did you mean 'lora'", "pissa")),
        (("task=gsmk8",), ("Unknown task 'gsmk8'", "Did you mean 'gsm8k'")),
        (("task=glu",), ("Unknown task 'glu'", "Did you mean 'glue'")),
        (("methd=eva",), ("Unknown setting 'methd'", "Did you mean 'method'")),
        (("--nosuch",), ("There is no option '--nosuch'", "--help")),
        (("suit=smoke",), ("Unknown setting 'suit'", "Did you mean 'suite'")),
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
        *(
            (
                (f"method={name}", "train.lr_ratio=16"),
                (f"train.lr_ratio does not go together with method={name}, which",),
            )
            for name in ("full", "full_low_rank", "full_others", "galore", "mica", "svfit")
        ),
        (("method=lora_plus", "train.lr_ratio=16"), ("method=lora_plus has its own method.lr_ratio",)),
        (("method=sorsa", "adapter.scaling=rslora"), ("adapter.scaling=rslora scales alpha, and method.alpha is",)),
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
        (("suite=smoke", "--cfg", "job"), ("--cfg is about one run", "dry_run=true")),
        (("suite=smoke", "plan=true"), ("plan is about one run", "dry_run=true")),
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


def test_too_few_steps_for_a_schedule_are_refused_before_the_first_evaluation(refused, monkeypatch):
    monkeypatch.setattr(scores, "before", None)
    sentence = refused("method=adalora", "method.interval=10", loads=True)
    assert "2 steps are too few for AdaLoRA" in sentence


def test_a_missing_choice_names_the_known_ones(refused):
    assert "Unknown setting 'methd' on the command line. Did you mean 'method'" in refused("methd=eva", usual=False)
    assert "No suite was chosen: add suite=<name>" in refused("suite=", usual=False)
    assert "method=<name>" in refused("task=gsm8k", usual=False)
    assert "gsm8k" in refused("method=lora", usual=False)


def test_a_typo_anywhere_in_a_sweep_stops_it_before_its_first_cell(refused):
    assert "Unknown method 'lroa'" in refused("-m", "method=pissa,lroa", "seed=0,1")


@pytest.mark.parametrize("value", ["on", "yes", "1", "True"])
def test_a_dry_run_by_any_word_for_true_runs_nothing(value, command, small_run, places, monkeypatch):
    monkeypatch.setattr(pipeline, "execute", None)
    code, out, _ = command("-m", "method=lora", "task=gsm8k", *small_run, *places, f"dry_run={value}")
    assert code == 0 and "Nothing was run" in out


def test_the_command_itself_prints_one_sentence_and_is_quick(tmp_path):
    arguments = ["method=lroa", "task=gsm8k", f"results_dir={tmp_path}", *SHORT_RUN]
    done = subprocess.run([sys.executable, "run.py", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("error: Unknown method 'lroa'.") and done.stderr.count("\n") == 1
