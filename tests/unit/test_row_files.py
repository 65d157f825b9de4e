"""Files of rows in every format: the same rows from each, and one sentence for what is none."""

from __future__ import annotations

import csv
import json

import pyarrow
import pyarrow.parquet
import pytest

from eva_bench.assets import catalogue
from eva_bench.assets.identity import data_identity
from eva_bench.assets.tables import FORMATS, read_table
from eva_bench.system.errors import UserError

ROWS = [
    {"question": 'He said "no",\nthen yes', "label": 0, "degree": 0.5},
    {"question": "a\tb; ümläut", "label": 12, "degree": -3.0},
]


def write(path, rows):
    """Rows in the format of the path's suffix, not written by what reads them."""
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows))
    elif path.suffix == ".jsonl":
        path.write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    else:
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0], delimiter="," if path.suffix == ".csv" else "\t")
            writer.writeheader()
            writer.writerows(rows)


@pytest.mark.parametrize("suffix", FORMATS)
def test_rows_are_the_same_in_every_format(suffix, tmp_path):
    path = tmp_path / f"rows{suffix}"
    write(path, ROWS)
    assert read_table(path) == ROWS
    assert [type(value) for value in read_table(path)[0].values()] == [str, int, float]


@pytest.fixture
def refusal(tmp_path, monkeypatch):
    """The sentence with which a file of some content is refused."""

    def call(name: str, content: bytes) -> str:
        monkeypatch.setitem(catalogue.manifest(), "own/rows", {"splits": {"train": {"file": name}}})
        (tmp_path / "own/rows").mkdir(parents=True, exist_ok=True)
        (tmp_path / "own/rows" / name).write_bytes(content)
        with pytest.raises(UserError) as refused:
            catalogue.load_rows("own/rows", "train", str(tmp_path))
        assert "\n" not in str(refused.value)
        return str(refused.value)

    return call


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("rows.xlsx", b"x", "'.xlsx' is none of the formats .parquet, .jsonl, .json, .csv, .tsv"),
        ("rows.csv", b"a,b\n1\n", "Expected 2 columns, got 1"),
        ("rows.csv", b"a,b\n\xff,1\n", "column 'a' is not UTF-8"),
        ("rows.csv", b"", "Empty CSV file"),
        ("rows.json", b'{"a": 1}', "something else than a list of rows"),
        ("rows.jsonl", b"[1]\n", "something else than a list of rows"),
        ("rows.jsonl", b'{"a":', "Expecting value"),
        ("rows.parquet", b"abc", "Parquet"),
    ],
)
def test_what_is_no_table_is_refused_in_one_sentence(name, content, reason, refusal):
    assert reason in refusal(name, content)


def test_a_table_without_rows_is_refused(refusal):
    assert refusal("rows.csv", b"a,b\n") == "Data set 'own/rows' has no rows in split 'train'."


def test_rows_that_no_hub_has_need_no_revision(tmp_path, monkeypatch):
    entry = {"by_hand": "written by me", "licence": "own", "splits": {"train": {"file": "train.csv"}}}
    monkeypatch.setitem(catalogue.manifest(), "own/rows", entry)
    (tmp_path / "own/rows").mkdir(parents=True)
    (tmp_path / "own/rows/train.csv").write_text("text,label\na,0\n")
    found = data_identity("own/rows", str(tmp_path), str(tmp_path / "runs"))
    assert found.revision is None and set(found.sha256) == {"train"}
