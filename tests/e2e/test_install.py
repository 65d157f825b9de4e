"""Installed from a built package: the command works from any folder, and says what is missing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from eva_bench.system.errors import missing_extra
from tests.conftest import ROOT
from tests.e2e.conftest import SHORT_RUN


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """A folder with the package as `pip install .` puts it; what it needs comes from this environment."""
    folder = tmp_path_factory.mktemp("site")
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--target",
        folder,
        ".",
    ]
    source = tmp_path_factory.mktemp("source") / "project"  # building leaves files beside the sources
    shutil.copytree(
        ROOT, source, ignore=shutil.ignore_patterns(".git", ".venv", "runs", "data", "records", "tests", "__pycache__")
    )
    done = subprocess.run(command, cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


def call(installed: Path, folder: Path, *arguments: str, without: str = "") -> subprocess.CompletedProcess:
    code = "import sys; from eva_bench.cli import main; sys.exit(main())"
    if without:
        code = f"import sys; sys.modules[{without!r}] = None; {code}"
    environment = os.environ | {"PYTHONPATH": str(installed), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def test_the_command_runs_in_any_folder(installed, tmp_path):
    done = call(installed, tmp_path, "method=lora", "task=gsm8k", *SHORT_RUN)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(list((tmp_path / "results/records").rglob("*.json"))) == 1
    assert list((tmp_path / "runs").glob("*/adapter/adapter_config.json"))
    assert (installed / "bin/eva-bench").is_file()


def test_a_part_that_is_not_installed_is_one_sentence(installed, tmp_path):
    done = call(installed, tmp_path, "method=lora", "task=vtab1k/dtd", *SHORT_RUN, without="timm")
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    assert "error: This needs timm, which is not installed: pip install 'eva-bench[vision]'." in done.stderr
    assert not list(tmp_path.glob("results/records/**/*.json"))


def test_only_modules_of_extras_are_explained():
    assert missing_extra(ModuleNotFoundError(name="nosuch")) is None and missing_extra(ValueError()) is None
