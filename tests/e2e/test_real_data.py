"""The real GSM8K rows and a real pretrained Llama-type model: every method learns, and its adapter loads elsewhere."""

from __future__ import annotations

from statistics import mean

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from eva_bench.records.store import Store
from eva_bench.run.cell import run_cell
from eva_bench.run.session import Session
from eva_bench.settings.compose import compose_spec
from eva_bench.system.signals import StopSignal
from tests.conftest import CONF

METHODS = [
    n for n in ("eva", "full", "lora", "olora", "pissa", "sorsa", "svfit") if (CONF / "method" / f"{n}.yaml").exists()
]
# SVFit trains few numbers; SORSA's penalty and full fine-tuning want smaller steps than a random start does.
LEARNING_RATES = {"svfit": 0.02, "full": 1e-3, "sorsa": 1e-3}


@pytest.fixture(scope="module")
def session() -> Session:
    """As in a sweep: the 7,473 rows are encoded once for all methods."""
    return Session(StopSignal())


@pytest.mark.real
@pytest.mark.parametrize("method", METHODS)
def test_the_loss_falls_and_the_adapter_loads(method, session, real_data, tmp_path, tmp_path_factory, places):
    checkpoint = real_data / "models/stories260K"
    runs = tmp_path_factory.getbasetemp() / "real_runs"  # shared: the untrained model is scored once
    spec = compose_spec(
        [
            f"method={method}",
            "task=gsm8k",
            f"data.root={real_data / 'hub'}",
            f"model.path={checkpoint}",
            "train.steps=15",
            "train.batch_size=4",
            "train.micro_batch_size=4",
            f"train.lr={LEARNING_RATES.get(method, 5e-3)}",
            "data.max_length=192",
            "calibration.batch_size=4",
            "eval.limit=4",
            "eval.max_new_tokens=8",
            "tracking=off",
            "threads=1",
            places[0],
            f"runs_dir={runs}",
        ]
    )

    assert run_cell(spec, session) == 0

    record = Store(tmp_path / "results").read(spec)
    assert record.status == "ok" and record.spec.identity.train_data.as_pinned
    assert record.data["rows"] == 7473
    losses = [point[1] for point in record.curve]
    assert len(losses) == 15 and mean(losses[-5:]) < mean(losses[:5])
    assert record.metrics["reference_loss"] < record.metrics_before["reference_loss"]
    assert record.metrics.keys() == record.metrics_before.keys() and record.metrics["samples"] == 4

    tokens = torch.randint(3, 500, (2, 20), generator=torch.Generator().manual_seed(0))
    untouched = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)
    with torch.no_grad():
        before = untouched(tokens).logits
        if method == "full":
            loaded = AutoModelForCausalLM.from_pretrained(runs / spec.run_id / "model", dtype=torch.float32)
        else:
            loaded = PeftModel.from_pretrained(untouched, runs / spec.run_id / "adapter").eval()
        assert (loaded(tokens).logits - before).abs().max() > 1e-3
