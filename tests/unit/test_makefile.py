"""The Makefile passes settings on in ARGS, and says so instead of ignoring what it does not know."""

from __future__ import annotations

import os
import subprocess

import pytest

from tests.conftest import ROOT


def make(*arguments: str) -> subprocess.CompletedProcess:
    """What make would do; nothing is run."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}  # under make test
    command = ["make", "--dry-run", "--assume-old=.venv/.ready", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)


@pytest.mark.parametrize("target", ["tables", "figures", "report", "claims", "benchmark", "run"])
def test_a_setting_outside_of_args_is_refused(target):
    done = make(target, "results_dir=mine")
    assert done.returncode == 2 and "results_dir. Settings of a command go into ARGS" in done.stderr
    assert make(target, "ARGS=results_dir=mine").returncode == 0


def test_the_benchmark_hands_its_folder_to_tables_figures_and_report():
    done = make("benchmark", "ARGS=results_dir=again seed=0")
    after = done.stdout[done.stdout.index("suite=benchmark") :]
    for command in ("tables", "figures", "page"):
        (line,) = [line for line in after.splitlines() if f"eva_bench.reporting.{command} " in line]
        assert line.split()[-1] == "results_dir=again", line


@pytest.mark.parametrize("given", ["SUITE=gsm8k", "PYTHON=python3", "VENV=.venv"])
def test_what_the_makefile_knows_is_taken(given):
    assert make("status", given).returncode == 0


@pytest.mark.parametrize(
    ("target", "given", "readers"),
    [
        ("run", "TASK=math", "fetch"),
        ("tables", "SUITE=gsm8k", "status submit retry"),
        ("pretrain", "TASK=math", "fetch"),
        ("lint", "ARGS=eva_bench", "run test tables"),
    ],
)
def test_what_a_target_would_ignore_is_refused(target, given, readers):
    done = make(target, given)
    name = given.partition("=")[0]
    assert done.returncode == 2 and f"'make {target}' does not read {name}; these do: {readers}" in done.stderr
    assert make("lint", "test", "ARGS=tests/unit").returncode == 0  # one of the two reads it


def test_a_pocket_model_that_does_not_exist_is_refused():
    done = make("pretrain", "MODEL=visoin")
    assert done.returncode == 2 and "unknown MODEL=visoin. Known: language exam" in done.stderr
    assert "pocket.pretrain" in make("pretrain", "MODEL=vision").stdout
