"""A run in two processes is the run in one: the same losses, answers, score and adapter, and one record."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from safetensors.torch import load_file

from eva_bench.records.record import Record, load_record
from eva_bench.records.store import Store
from eva_bench.run.prepare import prepare
from eva_bench.run.session import Session
from eva_bench.settings.compose import compose_spec
from eva_bench.system.errors import UserError
from eva_bench.system.signals import StopSignal
from tests.conftest import ROOT

SHORT = ["task=gsm8k", "train.steps=3", "train.batch_size=8", "train.micro_batch_size=4", "calibration.batch_size=8",
         "calibration.rows=16", "eval.limit=5", "eval.max_new_tokens=12", "eval.batch_size=4", "tracking=off",
         "threads=1", "train.lr=0.005"]  # fmt: skip  # whatever was tuned: steps make differences of EVA's larger
# EVA's last directions depend on how many batches are merged at once: one by one, or those of two processes.
WITHIN = {"lora": 1e-5, "eva": 1e-4}
LAUNCH = ["-m", "torch.distributed.run", "--nproc_per_node"]
SPLIT = """
import sys
from eva_bench import cli, models
load = models.load

def loaded(*arguments):
    bundle = load(*arguments)
    held = sum(p.to_local().numel() for p in bundle.module.parameters())
    assert held < 0.51 * sum(p.numel() for p in bundle.module.parameters()), held
    return bundle

models.load = loaded
sys.exit(cli.main())
"""


@dataclass
class Result:
    """What a run left."""

    record: Record
    samples: list[dict]
    adapter: dict


def run(folder: Path, launchers: list[list[str]], *arguments: str, script: str = "run.py") -> dict[str, Result]:
    """The results by method of a sweep over two of them, with these launchers of its processes."""
    command = ["-m", "method=lora,eva", *SHORT, f"results_dir={folder / 'results'}", f"runs_dir={folder / 'runs'}"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    started = [
        subprocess.Popen(
            [sys.executable, *launcher, script, *command, *arguments],
            cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for launcher in launchers
    ]  # fmt: skip
    for process in started:
        output, _ = process.communicate()
        assert process.returncode == 0, output[-4000:]
    assert (folder / "runs" / "rank1").is_dir() == (launchers != [[]])  # there were two
    records = [load_record(file.read_text()) for file in (folder / "results").rglob("*.json")]
    assert [record.status for record in records] == ["ok", "ok"]
    return {record.spec.method.name: _result(record, folder / "runs" / record.run_id) for record in records}


def _result(record: Record, folder: Path) -> Result:
    samples = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
    return Result(record, samples, load_file(folder / "adapter" / "adapter_model.safetensors"))


def two_nodes() -> list[list[str]]:
    """The commands of two launchers of one process each, which find each other as those of two nodes do."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    meet = ["--nnodes", "2", "--rdzv_backend", "c10d", "--rdzv_id", "1", "--rdzv_endpoint", f"localhost:{port}"]
    return 2 * [[*LAUNCH, "1", *meet]]


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> dict[str, Result]:
    """One process."""
    return run(tmp_path_factory.mktemp("alone"), [[]])


@pytest.fixture(scope="module")
def both(tmp_path_factory) -> dict[str, Result]:
    """Two processes, each with the whole model, started by two launchers."""
    return run(tmp_path_factory.mktemp("both"), two_nodes())


@pytest.fixture(scope="module")
def split(tmp_path_factory) -> dict[str, Result]:
    """Two processes, each with a half of the model."""
    folder = tmp_path_factory.mktemp("split")
    (folder / "split.py").write_text(SPLIT)
    return run(folder, [[*LAUNCH, "2", "--standalone"]], "model.sharded=true", script=str(folder / "split.py"))


@pytest.mark.parametrize("how", ["both", "split"])
def test_two_processes_give_the_losses_the_answers_the_score_and_the_adapter_of_one(how, alone, request):
    found = request.getfixturevalue(how)
    for method, expected in alone.items():
        result = found[method]
        assert result.record.run_id == expected.record.run_id
        assert [sample["row"] for sample in result.samples] == [0, 1, 2, 3, 4]
        assert result.samples == expected.samples
        for first, second in zip(expected.record.curve, result.record.curve, strict=True):
            assert first[1] == pytest.approx(second[1], rel=WITHIN[method])  # loss
            assert first == pytest.approx(second, rel=100 * WITHIN[method])  # gradient norm, learning rate
        assert result.record.metrics == pytest.approx(expected.record.metrics, abs=10 * WITHIN[method])
        assert result.record.metrics_before == pytest.approx(expected.record.metrics_before, abs=1e-5)
        assert result.record.ranks == expected.record.ranks
    same_adapter(found["lora"], alone["lora"])
    rows = [results["eva"].record.initialisation["rows"] for results in (alone, found)]
    assert rows[0] == rows[1]


def test_split_weights_change_nothing_in_what_eva_finds_and_trains(both, split):
    """Compared with two processes that each hold the whole model."""
    same_adapter(split["eva"], both["eva"])


def same_adapter(found: Result, expected: Result) -> None:
    """Equal but for a few numbers: AdamW makes a whole step of the rounding of a gradient near zero."""
    assert found.adapter.keys() == expected.adapter.keys()
    for name, tensor in expected.adapter.items():
        assert ((found.adapter[name] - tensor).abs() > 1e-5).float().mean() < 0.01, name


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (["method=pissa"], "method=pissa changes the weights"),
        (["method=full"], "method=full trains the weights"),
        (["method=dora"], "method=dora needs the norms of the weights"),
        (["method=lora", "task=glue/rte"], "is for language models; pocket_encoder is of kind classifier"),
    ],
)
def test_what_needs_whole_weights_is_refused_where_they_are_split(overrides, reason, places):
    spec = compose_spec(["task=gsm8k", "model.sharded=true", *overrides, *places])
    with pytest.raises(UserError, match=reason):
        prepare(spec, Session(StopSignal()), Store(spec.where.results_dir))
