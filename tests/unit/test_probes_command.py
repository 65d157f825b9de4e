"""The command: one probe on an adapter of anybody's, the file it writes, and one sentence for every mistake."""

import json
import shutil

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from eva_bench import models
from eva_bench.probes import __main__ as command
from eva_bench.probes import connectivity, intruders, permutations, trained
from eva_bench.probes.result import ProbeResult
from eva_bench.probes.subjects import base_model
from eva_bench.settings.schema import DataSettings
from eva_bench.system.paths import POCKET_WEIGHTS
from tests.unit.test_probes_connectivity import random_permutations

BASE = POCKET_WEIGHTS / "language"
TARGETS = ["q_proj", "v_proj", "down_proj"]


@pytest.fixture(scope="module")
def adapter(tmp_path_factory):
    """An adapter that PEFT saved, by somebody who knows the base as org/pocket_language."""
    folder = tmp_path_factory.mktemp("somebody") / "my-adapter"
    base = AutoModelForCausalLM.from_pretrained(BASE, dtype=torch.float32)
    model = get_peft_model(base, LoraConfig(r=4, lora_alpha=8, target_modules=TARGETS))
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.5)
    model.save_pretrained(folder)
    return named(folder, "org/pocket_language")


def named(folder, name, **changes):
    file = folder / trained.CONFIG
    file.write_text(json.dumps(json.loads(file.read_text()) | {"base_model_name_or_path": name} | changes))
    return folder


def run(tmp_path, *arguments):
    return command.main([*map(str, arguments), f"results_dir={tmp_path}"])


def refused(tmp_path, capsys, *arguments) -> str:
    """The one sentence on the terminal."""
    assert run(tmp_path, *arguments) == 2
    assert not (tmp_path / "probes").exists()
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    return lines[0]


@pytest.mark.parametrize("base", [BASE, "pocket_language"])
def test_intruders_of_a_stock_adapter(adapter, base, tmp_path):
    assert run(tmp_path, "intruders", f"adapter={adapter}", f"base={base}", "k=5", "epsilon=0.6") == 0
    (file,) = (tmp_path / "probes").rglob("*.json")
    assert file == tmp_path / "probes" / "intruders" / "my-adapter.json"
    text = file.read_text()
    result = ProbeResult.model_validate_json(text)
    module = AutoModelForCausalLM.from_pretrained(BASE, dtype=torch.float32)
    expected = {
        name: intruders.count(intruders.similarities(layer, 5), 0.6)
        for name, layer in trained.layers(module, trained.read_adapter(adapter))
    }
    assert {name: row["intruders"] for name, row in result.layers.items()} == expected
    assert len(expected) == 12 and result.summary["intruders"] == sum(expected.values()) > 0
    assert result.settings == {"k": 5, "epsilon": 0.6, "mitigation": False} and result.subjects == ["my-adapter"]
    assert str(tmp_path) not in text and str(POCKET_WEIGHTS) not in text and len(text) < 10_000


@pytest.mark.parametrize("probe", ["geometry", "variation", "low_rank"])
def test_weight_probes_of_a_stock_adapter(adapter, probe, tmp_path):
    assert run(tmp_path, probe, f"adapter={adapter}", f"base={BASE}") == 0
    result = ProbeResult.model_validate_json((tmp_path / "probes" / probe / "my-adapter.json").read_text())
    assert len(result.layers) == 12 and all(value is not None for value in result.summary.values())


def test_a_fully_tuned_checkpoint(tmp_path):
    model = AutoModelForCausalLM.from_pretrained(BASE, dtype=torch.float32)
    with torch.no_grad():
        model.model.layers[1].self_attn.q_proj.weight.mul_(2)
    model.save_pretrained(tmp_path / "tuned")
    shutil.copy(BASE / "tokenizer.json", tmp_path / "tuned")
    shutil.copy(BASE / "tokenizer_config.json", tmp_path / "tuned")
    arguments = ("geometry", f"checkpoint={tmp_path / 'tuned'}", f"base={BASE}", "targets=q_proj,v_proj")
    assert run(tmp_path, *arguments) == 0
    found = ProbeResult.model_validate_json((tmp_path / "probes" / "geometry" / "tuned.json").read_text()).layers
    sizes = {name: row["frobenius"] for name, row in found.items()}
    assert sizes.pop("model.layers.1.self_attn.q_proj") == pytest.approx(1, abs=1e-6)
    assert len(sizes) == 7 and set(sizes.values()) == {0}


def test_mistakes_of_the_command_line(adapter, tmp_path, capsys):
    given = (f"adapter={adapter}", f"base={BASE}")
    for arguments, sentence in {
        (): "Usage: python -m eva_bench.probes <probe>",
        ("intruder", *given): "Unknown probe 'intruder'. Did you mean 'intruders'?",
        ("intruders", *given, "epsilom=1"): "Unknown argument 'epsilom'. Did you mean 'epsilon'?",
        ("intruders", *given, "k=many"): "k=many: ",
        ("intruders", f"adapter={adapter}"): "Usage",
        ("intruders", *given, "run=x"): "Usage",
        ("intruders", f"adapter={adapter}", "base=nowhere"): "base=nowhere is neither a folder with a checkpoint",
        ("curvature", *given): "needs a task's data",
        ("connectivity", *given): "connectivity needs two runs or more",
        ("variation", "task=gsm8k"): "No ok run in",
        ("variation", "run=gsm8k-eva", f"runs_dir={tmp_path}"): "Run gsm8k-eva has left nothing",
        ("low_rank", *given, "reduction=0.55"): "reduction=0.55 is not one of 0.1,",
    }.items():
        assert sentence in refused(tmp_path, capsys, *arguments), arguments


def test_help_is_no_mistake(capsys):
    for arguments in (["--help"], ["intruders", "--help"]):
        assert command.main(arguments) == 0
        assert capsys.readouterr().out.startswith("Usage: python -m eva_bench.probes <probe>")


def test_adapters_that_belong_elsewhere(adapter, tmp_path, capsys):
    copy = shutil.copytree(adapter, tmp_path / "copy")
    given = ("intruders", f"adapter={copy}", f"base={BASE}")
    named(copy, "org/another")
    assert "was trained on 'another' by its configuration" in refused(tmp_path, capsys, *given)
    assert run(tmp_path / "out", *given, "same_base=true") == 0
    named(copy, "org/pocket_language", init_lora_weights="pissa")
    assert "initialised with 'pissa' and never converted" in refused(tmp_path, capsys, *given)
    named(copy, "org/pocket_language", init_lora_weights=True)
    elsewhere = ("intruders", f"adapter={copy}", f"base={POCKET_WEIGHTS / 'encoder'}", "same_base=true")
    capsys.readouterr()
    assert "lacks its down_proj, q_proj, v_proj" in refused(tmp_path, capsys, *elsewhere)
    whole = refused(tmp_path, capsys, "intruders", f"adapter={BASE}", f"base={BASE}")
    assert "whole checkpoint, not an adapter" in whole
    both = refused(tmp_path, capsys, "intruders", f"checkpoint={copy}", f"base={BASE}", "targets=q_proj")
    assert "is an adapter, not a whole checkpoint" in both
    (copy / "adapter_model.safetensors").unlink()
    assert "its weights are gone" in refused(tmp_path, capsys, *given)


def test_a_pretraining_with_its_units_elsewhere_is_matched(tmp_path):
    base = AutoModelForCausalLM.from_pretrained(BASE, dtype=torch.float32)
    units = permutations.wiring(base)
    moved = permutations.permute(connectivity.read_state(base), random_permutations(base, units, 3), units.axes)
    connectivity.write_state(base, moved)
    base.save_pretrained(tmp_path / "other")
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(BASE / file, tmp_path / "other")
    assert run(tmp_path, "pretrainings", f"others={tmp_path / 'other'}", "points=3") == 0
    (file,) = (tmp_path / "probes" / "pretrainings").glob("*.json")
    found = ProbeResult.model_validate_json(file.read_text())
    assert found.summary["straight_barrier"] > 0.1 and found.summary["straight_alignment"] < 0.5
    assert abs(found.summary["permuted_barrier"]) < 1e-3 and found.summary["permuted_alignment"] > 0.99
    losses = found.layers["straight/0-1"]["loss"]
    assert losses[0] == pytest.approx(losses[-1], abs=1e-3)


def test_pretrained_vision_transformers_are_matched_with_their_readouts(tmp_path, capsys):
    for name, seed in (("other", 5), ("third", 6)):
        bundle = models.load(base_model("pocket_vision", []), DataSettings(source="hub"), "cpu", 1)
        units = permutations.wiring(bundle.module)
        order = random_permutations(bundle.module, units, seed)
        moved = permutations.permute(connectivity.read_state(bundle.module), order, units.axes)
        connectivity.write_state(bundle.module, moved)
        bundle.module.reset_classifier(0)
        models.save(bundle, tmp_path / name)
        shutil.copy(POCKET_WEIGHTS / "vision" / "config.json", tmp_path / name)
    folders = f"others={tmp_path / 'other'},{tmp_path / 'third'}"
    given = ("pretrainings", "first=pocket_vision", folders, "points=3", "steps=1")
    assert "pocket.pretrain.held_out --model" in refused(tmp_path, capsys, *given)
    assert "no language or vision model" in refused(tmp_path, capsys, "pretrainings", "first=pocket_encoder", folders)
    for name, seed in (("other", 5), ("third", 6)):
        place = random_permutations(bundle.module, units, seed)["residual"].numpy()
        with np.load(POCKET_WEIGHTS / "held_out" / "vision.npz") as stored:
            kept = {key: stored[key][:, place] if key.endswith("weight") else stored[key] for key in stored.files}
        np.savez(tmp_path / name / "readouts.npz", **kept)
    assert run(tmp_path, *given) == 0
    (file,) = (tmp_path / "probes" / "pretrainings").glob("*.json")
    found = ProbeResult.model_validate_json(file.read_text())
    assert found.subjects == ["pocket_vision", "other", "third"] and len(set(found.sha256)) == 3
    assert {name.partition("/")[2] for name in found.layers if name.startswith("straight/")} == {"0-1", "0-2", "1-2"}
    seen = found.summary
    assert seen["straight_barrier"] > 0.1 and abs(seen["permuted_barrier"]) < 1e-3
    assert abs(seen["straight_through_barrier"]) < 1e-3  # it starts from weight matching, which is the best here
    assert seen["permuted_alignment"] > 0.99 > seen["straight_alignment"] + 0.5
    assert seen["permuted_merged"] == pytest.approx(seen["alone"], abs=1e-3)
    assert seen["straight_merged"] > seen["alone"] + 0.1


def test_profiles_of_models_are_those_of_their_layers(tmp_path, capsys):
    assert run(tmp_path, "profiles", "models=pocket_language") == 0
    found = ProbeResult.model_validate_json((tmp_path / "probes/profiles/pocket_language.json").read_text())
    weight = AutoModelForCausalLM.from_pretrained(BASE).model.layers[1].mlp.up_proj.weight.detach()
    squares = np.linalg.svd(weight.numpy().astype(float), compute_uv=False) ** 2
    row = found.layers["model.layers.1.mlp.up_proj"]
    assert row["full_rank"] == 128 and row["stable_rank"] == pytest.approx(squares.sum() / squares[0], rel=1e-4)
    assert row["energy_rank"] == 1 + (squares.cumsum() < 0.9 * squares.sum()).sum()
    assert found.summary["layers"] == len(found.layers) and 0 < found.summary["low_rank_layers"] < len(found.layers)
    assert run(tmp_path, "profiles", "models=pocket_language,pocket_vision", f"path={BASE}") == 2
    assert "folder of one model" in capsys.readouterr().err
