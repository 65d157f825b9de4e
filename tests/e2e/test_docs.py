"""Every command in README and docs is typed: the pocket ones run (shortened), the others get as far as they can here.

The worked examples of adding a method and a task are built in a copy of the project, file by file as the pages say, and
checked with the commands of the pages.
"""

from __future__ import annotations

import inspect
import os
import re
import shlex
import subprocess
import sys

import pytest
import torch

from eva_bench.sweeps import plan
from tests.conftest import ROOT
from tests.e2e.conftest import copy_of_project

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
SHORT = [
    *("train.epochs=null", "train.steps=2", "train.batch_size=8", "train.micro_batch_size=8"),
    *("calibration.batch_size=8", "eval.limit=2", "tracking=off", "threads=1"),
]
GENERATES = ["eval.max_new_tokens=8"]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def typed(page) -> list[str]:
    """The command lines of a page's blocks, one per command, without comments."""
    blocks = [block for language, block in BLOCK.findall(page.read_text(encoding="utf-8")) if not language]
    lines = [line for block in blocks for line in block.splitlines()]
    parts = [part.strip() for line in lines for part in line.split("#")[0].split("&&")]
    return [part for part in parts if part.startswith(("python run.py", "make "))]


ALL = sorted({command for page in PAGES for command in typed(page)})
RUNS = [shlex.split(command)[2:] for command in ALL if command.startswith("python") and "<" not in command]
FAMILIES = {f"task={path.name}" for path in (ROOT / "conf/task").iterdir() if path.is_dir()} - {"task=commonsense"}
EXAMPLES = {"method=row_lora", "method=my_method", "task=wnli"}  # made by the pages that name them


def kind(arguments: list[str]) -> str:
    """What can be asked of a command: to run, to list its cells, or to name what is not on this machine."""
    if EXAMPLES & set(arguments):
        return "example"
    if {"scale=small", "scale=lite", "scale=paper", "data.root=data/hub", "data.root=data/vtab-1k"} & set(arguments):
        return "needs data"
    if any(item.startswith("suite=small") for item in arguments):  # real data
        return "needs data"
    suite = any(item.startswith(("suite=", "-m")) for item in arguments) or FAMILIES & set(arguments)
    return "cells" if suite else "run"


def every_value_once(grid: plan.Grid) -> list[tuple[str, ...]]:
    """As few cells as name every value of a grid: whether each can be composed is what a page must not get wrong."""
    lengths = [len(values) for values in grid.values()]
    cells = max(lengths, default=1) if all(lengths) else 0
    return [tuple(values[i % len(values)] for values in grid.values()) for i in range(cells)]


def of_kind(wanted: str) -> list[list[str]]:
    found = [arguments for arguments in RUNS if kind(arguments) == wanted]
    assert found
    return found


def of_other_pages() -> list[list[str]]:
    """The commands that run, without those of the README: test_journey types them."""
    readme = [shlex.split(command)[2:] for command in typed(PAGES[0])]
    return [arguments for arguments in of_kind("run") if arguments not in readme]


@pytest.fixture(scope="module")
def shared_runs(tmp_path_factory) -> str:
    """Untouched models are scored once for all commands."""
    return f"runs_dir={tmp_path_factory.mktemp('runs')}"


@pytest.mark.parametrize("arguments", of_other_pages(), ids=" ".join)
def test_a_pocket_command_runs(arguments, command, places, shared_runs, short_episodes):
    language = GENERATES if {"task=gsm8k", "task=math"} & set(arguments) else []
    code, _, err = command(*arguments, *SHORT, *language, places[0], shared_runs)
    assert code == 0, err


@pytest.mark.parametrize("arguments", of_kind("cells"), ids=" ".join)
def test_a_sweep_lists_its_cells(arguments, command, places, monkeypatch):
    monkeypatch.setattr(plan, "_combinations", every_value_once)
    code, out, err = command(*arguments, "dry_run=true", *places)
    assert code == 0 and "missing" in out, err


@pytest.mark.parametrize("arguments", of_kind("needs data"), ids=" ".join)
def test_a_command_for_larger_data_is_understood_up_to_what_is_not_here(arguments, command, places):
    """Where model and data do lie here, the cells are listed; nothing is ever trained."""
    code, out, err = command(*arguments, "dry_run=true", *places)
    if code:
        assert code == 2 and re.search("make fetch|are not published", err) and "nknown" not in err, (code, err)
    else:
        assert "Nothing was run" in out + err


def test_the_lines_of_readme_and_model_card_load_the_adapter_of_a_run(command, places, tmp_path, monkeypatch):
    code, _, err = command("method=pissa", "task=gsm8k", *SHORT, *GENERATES, *places)
    assert code == 0, err
    (adapter,) = tmp_path.rglob("adapter_model.safetensors")
    code = next(block for _, block in BLOCK.findall(PAGES[0].read_text(encoding="utf-8")) if "PeftModel" in block)
    card = (adapter.parent / "README.md").read_text(encoding="utf-8")
    _, of_the_card = BLOCK.findall(card)[0]
    monkeypatch.chdir(tmp_path)
    loaded: dict = {}
    exec(of_the_card.replace("<this folder>", str(adapter.parent)), loaded)
    exec(code.replace("<run_id>", adapter.parts[-3]), loaded)
    tokens = torch.arange(3, 19)[None]
    with torch.no_grad(), loaded["model"].disable_adapter():
        before = loaded["base"](tokens).logits
    with torch.no_grad():
        assert (loaded["model"](tokens).logits - before).abs().max() > 1e-3


def test_every_make_target_that_a_page_names_exists():
    makefile = (ROOT / "Makefile").read_text()
    words = [word for command in ALL if command.startswith("make") for word in shlex.split(command)[1:]]
    targets = {word for word in words if re.fullmatch("[a-z-]+", word)} | {
        target for page in PAGES for target in re.findall(r"`make ([a-z-]+)", page.read_text(encoding="utf-8"))
    }
    assert len(targets) > 10
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_what_a_page_fetches_is_what_it_runs():
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    pairs = re.findall(r"make fetch (.*?) && python run.py (.*)", text)
    assert len(pairs) >= 3
    for fetched, run in pairs:
        wanted = {item.lower() for item in shlex.split(fetched)}
        assert wanted == {item for item in shlex.split(run) if item.startswith(("task=", "scale=", "model="))}, run


def test_signatures_on_the_page_of_methods_are_those_of_the_code():
    from eva_bench.methods.base import LowRankMethod, Method
    from eva_bench.methods.gradients import GradientMethod

    page = (ROOT / "docs/add_a_method.md").read_text(encoding="utf-8")
    named = re.findall(r"`(\w+)\(([^`]*)\)`", page[page.index("## What a method can change") :])
    checked = []
    for name, written in named:
        owner = next((kind for kind in (Method, LowRankMethod, GradientMethod) if name in vars(kind)), None)
        if owner is not None:
            wanted = [given for given in inspect.signature(getattr(owner, name)).parameters if given != "self"]
            assert [part.split("=")[0].strip() for part in written.split(",")] == wanted, name
            checked.append(name)
    assert {"parameter_groups", "optimizer", "penalty", "initialise", "gradient_factors", "check"} <= set(checked)


def test_every_link_of_a_page_leads_somewhere():
    for page in PAGES:
        for link in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            assert (page.parent / link).exists(), f"{page.relative_to(ROOT)}: {link}"


@pytest.mark.parametrize("name", ["add_a_method", "add_a_task"])
def test_the_worked_example_of_a_page_works(name, tmp_path, places):
    copy = tmp_path / "project"
    copy_of_project(copy)
    page = (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8")
    files = re.findall(r"^## \d\. [^\n]*`([^`\n]+)`\n+```\w+\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    assert len(files) >= 2
    for path, content in files:
        assert not (copy / path).exists(), f"{path} is there already: not an example any more"
        (copy / path).write_text(content, encoding="utf-8")

    environment = os.environ | {"PYTHONPATH": str(copy), "PYTEST_XDIST_AUTO_NUM_WORKERS": "1"}
    for line in typed(ROOT / "docs" / f"{name}.md"):
        if line.startswith("make test"):
            call = ["-m", "pytest", "-n", "0", "-q", *shlex.split(re.search('ARGS="(.*)"', line)[1])]
        elif line.startswith("make"):
            continue  # tables of committed records, rates from finished tuning runs
        else:
            short = ["dry_run=true"] if "suite=" in line else SHORT
            call = [*shlex.split(line)[1:], *short, *places]
        done = subprocess.run([sys.executable, *call], cwd=copy, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
