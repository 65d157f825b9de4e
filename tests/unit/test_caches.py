"""Caches and checkpoints: whole or absent; damage is noticed, said, and mended by computing again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator

import pytest
import torch

from eva_bench.methods.base import Initialisation
from eva_bench.methods.layer import Factors
from eva_bench.records import environment
from eva_bench.records.environment import CODE
from eva_bench.run import cache, checkpoint
from tests.conftest import ROOT

TENSORS = {
    "a": torch.arange(6.0).reshape(2, 3),
    "b": torch.ones(4, dtype=torch.bfloat16),
    "c": torch.tensor([], dtype=torch.int64),
}


def test_tensors_and_facts_come_back_exactly(tmp_path):
    cache.save_tensors(tmp_path / "new/x.safetensors", TENSORS, {"steps": 3, "curve": [[1, 0.5]]})
    tensors, facts = cache.load_tensors(tmp_path / "new/x.safetensors")
    assert facts == {"steps": 3, "curve": [[1, 0.5]]} and tensors.keys() == TENSORS.keys()
    assert all(torch.equal(tensors[key], TENSORS[key]) and tensors[key].dtype == TENSORS[key].dtype for key in TENSORS)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["x.safetensors"]


def test_absent_is_none_without_a_word(tmp_path, capsys):
    assert cache.load_tensors(tmp_path / "x") is None and checkpoint.load(tmp_path / "x") is None
    assert capsys.readouterr().err == ""


def flip(content: bytes) -> bytes:
    return content[:-3] + bytes([content[-3] ^ 1]) + content[-2:]


@pytest.mark.parametrize("damage", [flip, lambda b: b[:-10], lambda b: b[:20], lambda b: b"", lambda b: b"garbage" * 9])
def test_a_damaged_cache_file_is_noticed_and_made_again(damage, tmp_path, capsys):
    path = tmp_path / "x.safetensors"
    cache.save_tensors(path, {"a": torch.arange(9.0)}, {})
    path.write_bytes(damage(path.read_bytes()))
    assert cache.load_tensors(path) is None
    assert capsys.readouterr().err.count("x.safetensors is damaged and is made again") == 1
    cache.save_tensors(path, {"a": torch.arange(9.0)}, {})
    assert cache.load_tensors(path) is not None


def test_a_file_of_another_program_is_not_trusted(tmp_path, capsys):
    from safetensors.torch import save_file

    save_file({"a": torch.ones(2)}, tmp_path / "x.safetensors")
    assert cache.load_tensors(tmp_path / "x.safetensors") is None and "damaged" in capsys.readouterr().err


def test_an_initialisation_comes_back_with_its_scales_and_parts(tmp_path):
    factors = {
        "layer.0": Factors(torch.randn(2, 5), torch.randn(3, 2), scale=0.125),
        "layer.1": Factors(torch.randn(4, 5), torch.randn(3, 4), torch.randn(4), torch.randn(3), scale=1.0),
    }
    cache.save_initialisation(tmp_path / "i", Initialisation(factors=factors, facts={"batches": 7}))
    loaded = cache.load_initialisation(tmp_path / "i")
    assert loaded.facts == {"batches": 7} and list(loaded.factors) == list(factors)
    for name, wanted in factors.items():
        found = loaded.factors[name]
        assert found.scale == wanted.scale and found.tensors().keys() == wanted.tensors().keys()
        assert all(torch.equal(found.tensors()[part], wanted.tensors()[part]) for part in wanted.tensors())


@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda b: b[:7], lambda b: b"", lambda b: b"\x80" * 50])
def test_a_checkpoint_is_whole_or_none_with_a_warning(damage, tmp_path, capsys):
    path = tmp_path / "run.checkpoint"
    state = {"tensors": TENSORS, "rng": torch.get_rng_state(), "result": {"steps": 3}}
    checkpoint.save(path, state)
    assert checkpoint.load(path)["result"] == {"steps": 3} and [p.name for p in tmp_path.iterdir()] == [path.name]
    path.write_bytes(damage(path.read_bytes()))
    assert checkpoint.load(path) is None
    assert "run.checkpoint cannot be read and is ignored" in capsys.readouterr().err


def test_a_failed_save_leaves_the_former_checkpoint(tmp_path):
    path = tmp_path / "run.checkpoint"
    checkpoint.save(path, {"step": 1})
    with pytest.raises(Exception, match="pickle"):
        checkpoint.save(path, {"step": lambda: 2})
    assert checkpoint.load(path) == {"step": 1}


def flips(content: bytes, number: int = 400) -> Iterator[bytes]:
    """The content with one bit changed, at places all over it."""
    for position in range(0, len(content), max(1, len(content) // number)):
        yield content[:position] + bytes([content[position] ^ 1 << position % 8]) + content[position + 1 :]


def test_no_flipped_bit_of_a_cache_changes_tensors_or_facts(tmp_path):
    path = tmp_path / "x.safetensors"
    cache.save_tensors(path, {"a": torch.arange(9.0)}, {"scales": {"q": 1.0}, "steps": 30})
    whole = path.read_bytes()
    for damaged in flips(whole):
        path.write_bytes(damaged)
        if (found := cache.load_tensors(path)) is not None:
            assert torch.equal(found[0]["a"], torch.arange(9.0)) and found[1] == {"scales": {"q": 1.0}, "steps": 30}
    edited = whole.replace(b"30}", b"99}")
    assert edited != whole and cache.load_tensors(path) is None
    path.write_bytes(edited)
    assert cache.load_tensors(path) is None


def test_no_flipped_bit_of_a_checkpoint_changes_what_is_resumed(tmp_path):
    path = tmp_path / "run.checkpoint"
    checkpoint.save(path, {"tensors": {"a": torch.arange(200.0)}, "result": {"steps": 3, "loss": 0.5}})
    noticed = 0
    for damaged in flips(path.read_bytes()):
        path.write_bytes(damaged)
        if (state := checkpoint.load(path)) is None:
            noticed += 1
        else:  # a bit that no reader looks at
            assert torch.equal(state["tensors"]["a"], torch.arange(200.0))
            assert state["result"] == {"steps": 3, "loss": 0.5}
    assert noticed > 100


@pytest.mark.parametrize("content", [[], None, "text", 3, {"metrics": 1}])
def test_content_of_another_kind_is_damage_too(content, tmp_path, capsys):
    path = tmp_path / "before/metrics.json"
    cache.save_metrics(path, {"accuracy": 0.075})
    assert cache.load_metrics(path) == {"accuracy": 0.075}
    path.write_text(path.read_text().replace("0.075", "9.075"))
    assert cache.load_metrics(path) is None
    path.write_text(json.dumps(content))
    assert cache.load_metrics(path) is None
    torch.save(content, tmp_path / "run.checkpoint")
    if not isinstance(content, dict):
        assert checkpoint.load(tmp_path / "run.checkpoint") is None
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("tasks/manifest/math.yaml", "split", "splits"),
        ("tasks/language.py", 'reduction="sum"', 'reduction="mean"'),  # a loss
        ("eva_bench/methods/base.py", "lr_ratio or 1.0", "lr_ratio or 10.0"),  # parameter_groups
        ("eva_bench/models/classifier.py", "UserError", "UserError "),
        ("eva_bench/task.py", "total / max(count, 1)", "total / max(count, 2)"),
        ("baselines/lora.py", "1 / self.rank", "2 / self.rank"),
    ],
)
def test_an_edit_of_what_initialises_trains_or_evaluates_finds_no_old_cache(file, old, new, monkeypatch, tmp_path):
    for name in CODE:
        source, copy = ROOT / name, tmp_path / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(source, copy) if source.is_dir() else shutil.copy(source, copy)

    def cached() -> str:
        environment.code_checksum.cache_clear()
        return environment.cached_name("abc")

    here = cached()
    monkeypatch.setattr(environment, "ROOT", tmp_path)
    assert cached() == here  # where the project lies does not matter
    text = (tmp_path / file).read_text()
    assert old in text
    (tmp_path / file).write_text(text.replace(old, new))
    assert cached() != here
    (tmp_path / file).write_text(text)
    assert cached() == here
