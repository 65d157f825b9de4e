"""The README from top to bottom, as a new user would type it: in a clone outside any repository, in one shell on a
terminal; its first commands into a pipe, too; with what has to be seen.

The commands are those of the page. Only the recipes, episodes and probes of the clone are shorter, its environment is
the one that these tests run in (`test_install` makes a new one), and no network answers.
"""

from __future__ import annotations

import os
import pty
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT
from tests.e2e.conftest import copy_of_project

README = (ROOT / "README.md").read_text(encoding="utf-8")
SHORT = {
    "math": {"train": {"steps": 3}, "eval": {"limit": 6, "max_new_tokens": 8}},
    "glue": {"train": {"epochs": None, "steps": 3}, "eval": {"limit": 6}},
    "metaworld": {"train": {"steps": 3}, "eval": {"limit": 2}},
}


@pytest.fixture
def clone(tmp_path) -> Path:
    folder = tmp_path / "clone"
    copy_of_project(folder)
    for family, changes in SHORT.items():
        file = folder / "conf/recipe/pocket" / f"{family}.yaml"
        recipe = yaml.safe_load(file.read_text())
        for section, values in changes.items():
            recipe[section] |= values
        file.write_text(file.read_text().splitlines()[0] + "\n" + yaml.safe_dump(recipe))  # "# @package _global_"
    demonstrations = ROOT / "runs/cache/demonstrations"  # of experts, by checksum; some minutes to make
    demonstrations.mkdir(parents=True, exist_ok=True)
    (folder / "runs/cache").mkdir(parents=True)
    (folder / "runs/cache/demonstrations").symlink_to(demonstrations)
    with (folder / "tasks/control/rollout.py").open("a") as file:
        file.write("\nSTEPS = 20  # shorter episodes\n")
    with (folder / "eva_bench/probes/forgetting.py").open("a") as file:
        file.write("\n\ndef load_rows(*given, whole=load_rows):\n    return whole(*given)[:16]  # fewer rows\n")
    shutil.copytree(ROOT / "results/published", folder / "results/published")
    for name in ("constraints.txt", "pyproject.toml"):  # nothing is to be installed
        os.utime(folder / name, (0, 0))
    (folder / ".venv").symlink_to(sys.prefix)
    assert (folder / ".venv/.ready").is_file(), "these tests run in the environment that `make setup` makes"
    return folder


def typed(checkpoint: Path, mirror: Path) -> list[str]:
    """Every command of the README in its order, but for the tests themselves and the installation with pip.

    `<folder>` and `<checkpoint>` become folders. Sweeps are listed, not run, as tests/sweeps runs many. What needs
    network has to fail.
    """
    blocks = re.findall(r"^```\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    lines = [line.split("#")[0].strip() for block in blocks for line in block.splitlines()]
    starts = ("make ", "python run.py ", ". .venv")
    commands = [line for line in lines if line.startswith(starts) and line != "make test"]
    assert len(commands) > 15
    return [_here(line, checkpoint, mirror) for line in commands]


def _here(line: str, checkpoint: Path, mirror: Path) -> str:
    if line.startswith("make fetch"):
        return f"! {line.split(' && ')[0]}"
    if line == "make benchmark":
        return "make --dry-run benchmark"
    if re.search(r" -m | suite=| task=glue$", line):
        return f"{line} dry_run=true"
    return line.replace("<folder>", str(mirror)).replace("<checkpoint>", str(checkpoint))


def in_a_shell(lines: list[str], folder: Path, terminal: bool) -> tuple[int, str]:
    """What a shell shows that is given some lines one after the other; it ends with the first that fails."""
    outside = ("PYTEST", "VIRTUAL", "MAKE", "MFLAGS", "ARGS")  # `make test ARGS=...` is not for the clone's make
    environment = {name: value for name, value in os.environ.items() if not name.startswith(outside)}
    environment |= {"WANDB_MODE": "offline", "TERM": "xterm", "COLUMNS": "150"}
    environment |= {"HF_ENDPOINT": "http://127.0.0.1:9"}  # nothing listens there
    command = ["bash", "--norc", "-c", "set -e\n" + "\n".join(lines)]
    if not terminal:
        done = subprocess.run(command, cwd=folder, env=environment, stdout=-1, stderr=subprocess.STDOUT, text=True)
        return done.returncode, done.stdout
    ours, theirs = pty.openpty()
    shell = subprocess.Popen(command, cwd=folder, env=environment, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    seen: list[bytes] = []
    reader = threading.Thread(target=_read, args=(ours, seen))
    reader.start()
    code = shell.wait()
    reader.join()
    return code, b"".join(seen).decode().replace("\r\n", "\n")


def _read(file: int, seen: list[bytes]) -> None:
    while True:
        try:
            part = os.read(file, 4096)
        except OSError:  # nobody writes any more
            return
        if not part:
            return
        seen.append(part)


RUN = [
    r"eva-bench: eva on gsm8k, seed 0; scale=pocket \(small models and generated",
    r"Next: .*make fetch TASK=gsm8k SCALE=lite",
    r"loading model and data",
    r"ahead: 6 answers before and after, 3 steps of 16 examples; at most about \d+ \w+, by one measured batch",
    r"before training: exact_match_strict [\d.]+ %, loss on the reference answers [\d.]+",
    r"trainable parameters in \d+ layers, initialised in [\d.]+ s",
    r"training.*3/3",
    r"OK  gsm8k-eva-pocket-s0-\w{10}\n",
    r"  exact_match_strict +[\d.]+ % -> [\d.]+ %",
    r"  trained +[\d,]+ parameters, 3 steps, [\d,]+ tokens",
    r"  record +results/records/pocket/gsm8k/eva/gsm8k-eva-pocket-s0-\w{10}\.json",
    r"  adapter +runs/gsm8k-eva-pocket-s0-\w{10}/adapter  \(stock PEFT LoRA\)",
]
AGAIN = [r"already done: nothing is computed again \(force=true runs it anew\)"]
REST = [
    r"OK  \S*cola-pissa-pocket-s1-\w{10}\n",
    r"steps, \d+ texts",
    r"families  glue",  # --help
    r"benchmark +The whole pocket benchmark",  # make help
    r"OK  gsm8k-eva-pocket-s0-\w{10}\n",  # another value of anything
    r"OK  math-eva-pocket-s0-\w{10}\n",
    r"8 cells",
    r"OK  metaworld_push-eva-pocket-s0-\w{10}\n",
    r"9 cells: 1 ok, 8 missing",
    r"smoke: 7 cells",
    r"results/tables/own-pocket.md: Own runs",
    r"1 finished run is shown apart, as own runs, because of method.rho \(1\), train.lr \(1\)",
    r"\d+ figures in results/figures",
    r"results/report/index.html",
    r"run.py suite=benchmark hydra/launcher=local hydra.launcher.processes=2",
    r"settings of scale=pocket, model 'smollm2_135m' \(model.path\), training data 'openai/gsm8k' \(data.root\)",
    r"  record +mine/records/pocket/gsm8k/eva/gsm8k-eva-pocket-s0-\w{10}\.json",
    *[r"error: 127.0.0.1 cannot be reached .* Run the same command on a machine with network"] * 4,
]


def see(expected: list[str], seen: str) -> None:
    """Every pattern is seen, one after the other."""
    position = 0
    for pattern in expected:
        match = re.compile(pattern).search(seen, position)
        assert match, f"{pattern!r} is not seen after:\n{seen[max(0, position - 500) : position]}"
        position = match.end()


@pytest.mark.timeout(900)
def test_the_first_command_into_a_pipe(clone, checkpoint, mirror):
    first = typed(checkpoint("smollm2_135m"), mirror)[0]
    assert first == "make run"
    code, seen = in_a_shell([first, first], clone, terminal=False)
    assert code == 0 and "Traceback" not in seen, seen[-3000:]
    see([*RUN, *AGAIN], seen)
    assert "\x1b[" not in seen
    (record,) = (clone / "results/records/pocket/gsm8k/eva").glob("*.json")
    card = clone / "runs" / record.stem / "adapter/README.md"
    assert "`python run.py method=eva task=gsm8k`" in card.read_text(encoding="utf-8")


@pytest.mark.timeout(1800)
def test_the_whole_readme_on_a_terminal(clone, checkpoint, mirror):
    code, seen = in_a_shell(typed(checkpoint("smollm2_135m"), mirror), clone, terminal=True)
    assert code == 0 and "Traceback" not in seen, seen[-3000:]
    assert "\x1b[" in seen  # bars
    see([*RUN, *REST], re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", seen))
