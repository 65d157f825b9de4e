"""What goes wrong on the way: a failed record with its reason, and nothing else lost."""

from __future__ import annotations

import pytest

from eva_bench.records.store import Store
from eva_bench.reporting import tables
from tasks.gsm8k import GSM8K


def test_a_corrupt_record_is_reported_skipped_and_kept(command, small_run, places, tmp_path, capfd):
    records = tmp_path / "results/records"
    records.mkdir(parents=True)
    (records / "gsm8k-lora-pocket-s0-0000000000.json").write_text('{"schema_version": 1, "run_id"')
    code, out, _ = command("method=lora", "task=gsm8k", *small_run, *places)
    assert code == 0 and "OK" in out
    store = Store(tmp_path / "results")
    spec = next(record.spec for record in store.read_all())
    assert tables.main([f"results_dir={tmp_path / 'results'}"]) == 0
    assert "0000000000.json is not a readable record and is skipped" in capfd.readouterr().err

    own = store.path(spec)  # now the record of the very run is damaged: it is run again, the file kept
    own.write_text(own.read_text()[:200])
    code, out, err = command("method=lora", "task=gsm8k", *small_run, *places)
    assert code == 0 and "is not a readable record" in err and store.read(spec).status == "ok"
    assert [len(file.read_text()) for file in store.superseded.glob("*")] == [200]


@pytest.mark.parametrize("step", [1, 2])
def test_a_loss_that_is_not_finite_gives_a_failed_record_with_the_step(
    step, command, small_run, places, tmp_path, monkeypatch
):
    true_loss, calls = GSM8K.loss, []

    def loss(self, module, batch):
        value, count = true_loss(self, module, batch)
        if module.training:
            calls.append(1)
        return (value * float("nan") if len(calls) == 2 * step - 1 else value), count  # two micro batches a step

    monkeypatch.setattr(GSM8K, "loss", loss)
    code, out, err = command("method=lora", "task=gsm8k", *small_run, *places)
    assert code == 1 and "FAILED" in out and "Traceback" not in out + err
    (record,) = Store(tmp_path / "results").read_all()
    assert record.status == "failed" and f"nan at step {step}" in record.error and record.steps == step - 1
    monkeypatch.setattr(GSM8K, "loss", true_loss)
    assert command("method=lora", "task=gsm8k", *small_run, *places)[0] == 0  # a failure does not stand in the way
    assert [record.status for record in Store(tmp_path / "results").read_all()] == ["ok"]


def test_weights_that_blow_up_in_the_last_step_are_a_failure_too(command, small_run, places, tmp_path):
    code, *_ = command(
        "method=lora", "task=gsm8k", *small_run, *places, "train.lr=1e38", "train.schedule=constant", "train.steps=1"
    )
    assert code == 1
    (record,) = Store(tmp_path / "results").read_all()
    assert record.status == "failed" and "1 steps" in record.error
