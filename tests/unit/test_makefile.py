"""The Makefile passes settings on in ARGS, and says so instead of ignoring what it does not know."""

from __future__ import annotations

import subprocess

import pytest

from tests.conftest import ROOT


def make(*arguments: str) -> subprocess.CompletedProcess:
    """What make would do; nothing is run."""
    return subprocess.run(["make", "--dry-run", *arguments], cwd=ROOT, capture_output=True, text=True)


@pytest.mark.parametrize("target", ["tables", "figures", "report", "claims", "benchmark", "run"])
def test_a_setting_outside_of_args_is_refused(target):
    done = make(target, "results_dir=mine")
    assert done.returncode == 2 and 'results_dir. Settings of a command go into ARGS' in done.stderr
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
