"""A thousand training rows of a real set: drawn once by their own seed, and never among the validation rows."""

from __future__ import annotations

import hashlib

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from eva_bench.settings.compose import compose_spec
from eva_bench.system.errors import UserError
from eva_bench.task import split_rows
from tests.checkpoints import write_checkpoint

SENTENCES = [{"sentence": f"Sentence {i}.", "label": i % 2, "idx": i} for i in range(60)]


@pytest.fixture(scope="module")
def places(tmp_path_factory) -> list[str]:
    """60 training and 12 development rows of CoLA, and a checkpoint."""
    folder = tmp_path_factory.mktemp("small")
    for split, rows in (("train", SENTENCES), ("validation", SENTENCES[:12])):
        file = folder / "hub/nyu-mll/glue/cola" / f"{split}-00000-of-00001.parquet"
        file.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(rows), file)
    checkpoint = write_checkpoint("minilm_l6", folder / "all-MiniLM-L6-v2")
    return [f"data.root={folder / 'hub'}", f"model.path={checkpoint}", f"results_dir={folder / 'results'}"]


@pytest.fixture
def drawn(places):
    """Positions in the file of the training and the evaluation rows of a run."""

    def call(*overrides: str) -> tuple[list[int], list[int]]:
        rows = ["data.rows=20", "data.holdout=15", *overrides]
        chosen = {item.split("=")[0]: item for item in ["method=lora", "task=glue/cola", "scale=small", *places, *rows]}
        train, evaluation = split_rows(compose_spec(list(chosen.values())))
        return [row["idx"] for row in train.rows], [row["idx"] for row in evaluation.rows]

    return call


def test_the_draw_is_the_same_for_every_method_seed_and_stage(drawn):
    rows, development = drawn()
    assert len(set(rows)) == 20 and development == list(range(12))
    assert rows not in (sorted(rows), list(range(20)))  # drawn, not cut off
    for other in (["method=eva"], ["seed=7"], ["stage=tune"], ["train.lr=1"], ["method=full", "seed=100"]):
        assert drawn(*other)[0] == rows
    assert drawn("data.rows_seed=1")[0] != rows
    assert drawn("data.rows=30")[0][:20] == rows  # more rows contain fewer


def test_the_order_is_that_of_checksums(drawn):
    """On every platform; another order would be other data under the same name."""
    order = sorted((hashlib.sha256(f"0/{i}".encode()).digest(), i) for i in range(60))
    assert drawn("data.rows_seed=0")[0] == [i for _, i in order[:20]]


def test_validation_rows_are_outside_the_draw_and_fixed(drawn):
    rows, validation = drawn("stage=tune")
    assert len(set(validation)) == 15 and not set(rows) & set(validation)
    assert drawn("stage=tune", "method=full", "seed=3") == (rows, validation)


def test_null_takes_all_rows(drawn):
    assert drawn("data.rows=null")[0] == list(range(60))
    assert drawn("data.rows=null", "stage=tune") == (list(range(45)), list(range(45, 60)))


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["data.rows=61"], "data.rows=61: 'nyu-mll/glue/cola' has 60 training rows here; data.rows=null takes all."),
        (["stage=tune", "data.rows=50"], "stage=tune needs data.holdout between 1 and 10: "),
        (["stage=tune", "data.holdout=0"], "stage=tune needs data.holdout between 1 and 40: "),
        (["data.rows_seed=null"], "data.rows=20 needs data.rows_seed, the seed of the draw of these rows."),
        (["data.rows=0"], "data.rows"),
    ],
)
def test_what_cannot_be_drawn(drawn, overrides, sentence):
    with pytest.raises(UserError) as refusal:
        drawn(*overrides)
    assert str(refusal.value).startswith(sentence)
