"""What the end-to-end tests share: small checkpoints, a small mirror of the data sets, one run in this process."""

from __future__ import annotations

import json
import shutil
import subprocess
from contextlib import ExitStack
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from eva_bench import cli, models
from eva_bench.probes import forgetting
from eva_bench.system import paths
from pocket.datasets import gsm8k
from tests.browser import Browser, executable
from tests.checkpoints import write_checkpoint
from tests.conftest import CONF, ROOT

ROWS = 40
SHORT_RUN = ["train.steps=2", "train.batch_size=4", "train.micro_batch_size=2", "calibration.batch_size=4",
             "adapter.rank=4", "eval.limit=4", "eval.max_new_tokens=8", "tracking=off", "threads=1"]  # fmt: skip


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """A function from a model's name in conf/model/ to a small random checkpoint of its kind, written once."""
    base, written = tmp_path_factory.mktemp("checkpoints"), {}

    def get(name: str) -> Path:
        if name not in written:
            written[name] = write_checkpoint(name, base / name)
        return written[name]

    return get


def write_gsm8k(root: Path, train: list[dict], test: list[dict]) -> None:
    folder = root / "openai/gsm8k/main"
    folder.mkdir(parents=True)
    for split, rows in (("train", train), ("test", test)):
        pq.write_table(pa.Table.from_pylist(rows), folder / f"{split}-00000-of-00001.parquet")


def metamath_row(row: dict[str, str], index: int) -> dict[str, str]:
    """MetaMathQA's columns; every fifth question has a second paragraph, which gets the template with input."""
    steps, _, result = row["answer"].partition("#### ")
    question = row["question"] + ("\nGive the number only." if index % 5 == 0 else "")
    response = f"{steps}#### {result}\nThe answer is: {result}"
    return {"query": question, "response": response, "type": "GSM_Rephrased", "original_question": row["question"]}


@pytest.fixture(scope="session")
def mirror(tmp_path_factory) -> Path:
    """openai/gsm8k and meta-math/MetaMathQA as `make fetch` lays them out, 40 short rows each."""
    root = tmp_path_factory.mktemp("hub")
    rows = gsm8k.generate("train", ROWS)
    write_gsm8k(root, rows, gsm8k.generate("test", ROWS))
    folder = root / "meta-math/MetaMathQA"
    folder.mkdir(parents=True)
    (folder / "MetaMathQA-395K.json").write_text(json.dumps([metamath_row(row, i) for i, row in enumerate(rows)]))
    return root


@pytest.fixture(scope="session")
def small_run(checkpoint, mirror):
    """Overrides of a short run of the pocket recipe on a small checkpoint and the mirror; add where to write."""
    return [f"model.path={checkpoint('smollm2_135m')}", f"data.root={mirror}", *SHORT_RUN]


@pytest.fixture(scope="module", autouse=True)
def few_texts_of_pretraining():
    """Forgetting is measured on 16 rows in these short runs: with all of them it would take as long as the rest."""
    whole = forgetting.load_rows
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(forgetting, "load_rows", lambda *given: whole(*given)[:16])
        yield


@pytest.fixture
def places(tmp_path) -> list[str]:
    return [f"results_dir={tmp_path / 'results'}", f"runs_dir={tmp_path / 'runs'}"]


@pytest.fixture
def command(monkeypatch, capfd):
    """`python run.py <arguments>` in this process: (exit code, standard output, standard error)."""

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["run.py", *arguments])
        capfd.readouterr()
        code = cli.main()
        captured = capfd.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.fixture
def short_episodes(monkeypatch) -> None:
    """Episodes of 20 steps instead of 200."""
    monkeypatch.setattr("tasks.control.rollout.STEPS", 20)


def copy_of_project(folder: Path) -> None:
    """Everything that git knows, apart from results and pictures, in a folder that is no repository."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for file in listed.splitlines():
        if not file.startswith(("results/", "docs/img")) and (ROOT / file).is_file():
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / file, folder / file)


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


@pytest.fixture
def own_conf(tmp_path, monkeypatch) -> Path:
    """A copy of conf/ that a test may spoil."""
    folder = tmp_path / "conf"
    shutil.copytree(CONF, folder)
    monkeypatch.setattr(paths, "CONF", folder)
    return folder


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """A function that opens a page; where there is no browser, the tests that look at one are skipped, visibly."""
    if executable() is None:
        pytest.skip("no Chromium on this machine: the page is not tested in a browser")
    with ExitStack() as browsers:

        def open_page(file: Path) -> Browser:
            browser = browsers.enter_context(Browser(tmp_path_factory.mktemp("profile")))
            browser.open(file.as_uri())
            browser.wait("document.body.dataset.ready")
            return browser

        yield open_page
