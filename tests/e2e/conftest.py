"""What the end-to-end tests share: small checkpoints, a small mirror of the data sets, one run in this process."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from eva_bench import cli
from pocket.datasets import gsm8k
from tests.checkpoints import write_checkpoint

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
