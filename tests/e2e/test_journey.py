"""The first minutes of a user: the README's first commands, typed in a clone outside any repository, on a terminal and
into a pipe, with what has to be seen.

The commands are those of the page. Only the recipes of the clone are shorter, and its environment is the one that these
tests run in.
"""

from __future__ import annotations

import os
import pty
import re
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
    for name in ("constraints.txt", "pyproject.toml"):  # nothing is to be installed
        os.utime(folder / name, (0, 0))
    (folder / ".venv").symlink_to(sys.prefix)
    assert (folder / ".venv/.ready").is_file(), "these tests run in the environment that `make setup` makes"
    return folder


def typed() -> list[str]:
    """The commands of the README before its results, but for the tests."""
    first = README[: README.index("## Results")]
    blocks = re.findall(r"^```\n(.*?)^```", first, re.MULTILINE | re.DOTALL)
    lines = [line.split("#")[0].strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line and line != "make test"]


def in_a_shell(lines: list[str], folder: Path, terminal: bool) -> tuple[int, str]:
    """What a shell shows that is given some lines one after the other; it ends with the first that fails."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "VIRTUAL"))}
    environment |= {"WANDB_MODE": "offline", "TERM": "xterm", "COLUMNS": "150"}
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
REST = [
    r"OK  \S*cola-pissa-pocket-s1-\w{10}\n",
    r"steps, \d+ texts",
    r"families  glue",  # --help
    r"benchmark +The whole pocket benchmark",  # make help
]
AGAIN = [r"already done: nothing is computed again \(force=true runs it anew\)"]


def see(expected: list[str], seen: str) -> None:
    """Every pattern is seen, one after the other."""
    position = 0
    for pattern in expected:
        match = re.compile(pattern).search(seen, position)
        assert match, f"{pattern!r} is not seen after:\n{seen[max(0, position - 500) : position]}"
        position = match.end()


@pytest.mark.timeout(900)
def test_the_first_commands_of_the_readme_into_a_pipe(clone):
    lines = typed()
    assert lines[0] == "make run" and ". .venv/bin/activate" in lines and len(lines) >= 5
    code, seen = in_a_shell([*lines, "python run.py method=eva task=gsm8k"], clone, terminal=False)
    assert code == 0 and "Traceback" not in seen, seen[-3000:]
    see([*RUN, *REST, *AGAIN], seen)
    assert "\x1b[" not in seen
    (record,) = (clone / "results/records/pocket/gsm8k/eva").glob("*.json")
    card = clone / "runs" / record.stem / "adapter/README.md"
    assert "`python run.py method=eva task=gsm8k`" in card.read_text(encoding="utf-8")


@pytest.mark.timeout(900)
def test_the_first_command_of_the_readme_on_a_terminal(clone):
    code, seen = in_a_shell([typed()[0], typed()[0]], clone, terminal=True)
    assert code == 0 and "Traceback" not in seen, seen[-3000:]
    see([*RUN, *AGAIN], seen)
    assert "\x1b[" in seen  # bars
