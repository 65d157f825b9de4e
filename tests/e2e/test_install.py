"""Installed from a built package: the command works from any folder, and EVA for PEFT models without the suite."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from eva_bench.system.errors import missing_extra
from tests.conftest import ROOT
from tests.e2e.conftest import SHORT_RUN
from tests.forked import Command

ALONE = """
import torch
from peft import EvaConfig, LoraConfig, PeftModel, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM
from eva_bench.eva import get_eva_state_dict, initialize_eva, initialize_lora_eva_weights

torch.manual_seed(0)
shape = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
base = LlamaForCausalLM(LlamaConfig(vocab_size=40, **shape))
batches = [{"input_ids": torch.randint(0, 40, (8, 10))} for _ in range(4)]
config = LoraConfig(r=2, target_modules=["q_proj", "down_proj"], init_lora_weights="eva", eva_config=EvaConfig(rho=2))
model = get_peft_model(base, config)
state = get_eva_state_dict(model, batches)
initialize_lora_eva_weights(model, eva_state_dict=state)
initialize_lora_eva_weights(model, batches)
assert sum(len(rows) for rows in state.values()) == 4 and initialize_eva(model, batches).batches == 4
model.save_pretrained("adapter")
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """A folder with the package as `pip install .` puts it; what it needs comes from this environment."""
    folder = tmp_path_factory.mktemp("site")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    source = tmp_path_factory.mktemp("source") / "project"  # building leaves files beside the sources
    shutil.copytree(
        ROOT, source, ignore=shutil.ignore_patterns(".git", ".venv", "runs", "data", "records", "tests", "__pycache__")
    )
    done = subprocess.run([*pip, "--target", folder, "."], cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def alone(installed, tmp_path_factory) -> Path:
    """A folder with the package and links to what its extra `eva` brings, as an environment of its own would have."""
    folder = tmp_path_factory.mktemp("alone")
    asked = metadata.Distribution.at(next(installed.glob("eva_bench-*.dist-info"))).requires
    found = brought(Requirement(line) for line in asked)
    assert {"torch", "transformers", "peft"} <= found and not {"hydra-core", "lm-eval", "timm", "pandas"} & found
    packages = Path(sysconfig.get_path("purelib"))
    for name in found:
        for top in {file.parts[0] for file in metadata.files(name) or []} - {"..", "__pycache__"}:
            if not (folder / top).exists():
                (folder / top).symlink_to(packages / top)
    for path in installed.iterdir():
        (folder / path.name).symlink_to(path)
    return folder


def brought(lines: Iterable[Requirement]) -> set[str]:
    """Distributions of this environment that requirements without extras bring, directly or not."""
    todo, found = [*lines], set()
    while todo:
        line = todo.pop()
        name = re.sub(r"[-_.]+", "-", line.name).lower()
        if name in found or (line.marker and not line.marker.evaluate({"extra": "eva"})):
            continue
        found.add(name)
        todo += [Requirement(text) for text in metadata.requires(name) or []]
    return found


def call(installed: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    code = "import sys; from eva_bench import main; sys.exit(main())"
    environment = os.environ | {"PYTHONPATH": str(installed)}
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def call_alone(alone: Path, folder: Path, code: str) -> subprocess.CompletedProcess:
    """Python without this environment: it sees its own library and one folder."""
    command = [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.append({str(alone)!r})\n{code}"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def test_the_command_runs_in_any_folder(installed, tmp_path):
    done = call(installed, tmp_path, "method=lora", "task=gsm8k", *SHORT_RUN)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(list((tmp_path / "results/records").rglob("*.json"))) == 1
    assert list((tmp_path / "runs").glob("*/adapter/adapter_config.json"))
    assert (installed / "bin/eva-bench").is_file()


def test_eva_alone_initialises_a_peft_model(alone, tmp_path):
    done = call_alone(alone, tmp_path, ALONE)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "adapter/adapter_config.json").is_file()


def test_the_command_says_that_the_suite_is_not_installed(alone, tmp_path):
    done = call_alone(alone, tmp_path, "from eva_bench import main; sys.exit(main())")
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert "which is not installed: pip install 'eva-bench[suite]'." in done.stderr


def without_timm() -> None:
    sys.modules["timm"] = None


def test_a_part_that_is_not_installed_is_one_sentence(places, tmp_path):
    arguments = ["method=lora", "task=vtab1k/dtd", *SHORT_RUN, *places]
    done = Command(arguments, tmp_path / "output.txt", prepare=without_timm)
    assert done.end() == 2 and "Traceback" not in done.said(), done.said()
    assert "error: This needs timm, which is not installed: pip install 'eva-bench[vision]'." in done.said()
    assert not list(tmp_path.glob("results/records/**/*.json"))


def test_only_modules_of_extras_are_explained():
    assert missing_extra(ModuleNotFoundError(name="nosuch")) is None and missing_extra(ValueError()) is None
