"""Merged weights from stock PEFT adapters: as PEFT itself merges them; what cannot be analysed is refused."""

import copy
import json

import pytest
import torch
from peft import IA3Config, LoraConfig, get_peft_model
from transformers import RobertaConfig, RobertaForSequenceClassification

from eva_bench.models.linear import weight_matrix
from eva_bench.probes import trained
from eva_bench.system.errors import UserError
from tests.conftest import tiny_gpt2, tiny_llama

LLAMA = ["q_proj", "down_proj", "lm_head"]
PATTERNS = {"rank_pattern": {"layers.1.self_attn.q_proj": 2}, "alpha_pattern": {"down_proj": 7}}


def tiny_roberta():
    torch.manual_seed(0)
    config = RobertaConfig(
        vocab_size=60, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_labels=3,
        max_position_embeddings=40, type_vocab_size=1, bos_token_id=0, eos_token_id=2, pad_token_id=1,
    )  # fmt: skip
    return RobertaForSequenceClassification(config).eval()


CASES = {
    "plain": (tiny_llama, {"target_modules": LLAMA}),
    "tied head": (lambda: tiny_llama(tied=True), {"target_modules": LLAMA}),
    "rslora": (tiny_llama, {"target_modules": LLAMA, "use_rslora": True}),
    "patterns": (tiny_llama, {"target_modules": LLAMA} | PATTERNS),
    "dora": (tiny_llama, {"target_modules": LLAMA, "use_dora": True}),
    "Conv1D": (tiny_gpt2, {"target_modules": ["c_attn", "c_proj"]}),
    "head and biases": (tiny_roberta, {"target_modules": ["query", "dense"], "modules_to_save": ["classifier"],
                                       "exclude_modules": ["classifier.dense"], "bias": "all", "task_type": "SEQ_CLS"}),
}  # fmt: skip


def peft_model(make, options):
    """A PEFT model whose trained tensors are random."""
    model = get_peft_model(make(), LoraConfig(r=4, lora_alpha=6, **options))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model


@pytest.mark.parametrize("case", CASES)
def test_merged_weights_are_those_that_peft_merges(case, tmp_path):
    make, options = CASES[case]
    model = peft_model(make, options)
    model.save_pretrained(tmp_path)
    merged = model.merge_and_unload()
    base, found = make(), trained.read_adapter(tmp_path)
    looked_at = dict(trained.layers(base, found))
    assert looked_at
    for name, layer in looked_at.items():
        assert layer.rank == (2 if case == "patterns" and name == "model.layers.1.self_attn.q_proj" else 4)
        expected = weight_matrix(merged.get_submodule(name))
        torch.testing.assert_close(layer.tuned, expected, rtol=0, atol=2e-6)
        torch.testing.assert_close(layer.base, weight_matrix(base.get_submodule(name)), rtol=0, atol=0)
        assert layer.update.norm() > 0.01 * layer.base.norm()


@pytest.mark.parametrize("case", CASES)
def test_an_installed_model_computes_what_the_adapted_one_does(case, tmp_path, tokens):
    make, options = CASES[case]
    model = peft_model(make, options)
    model.save_pretrained(tmp_path)
    module = make()
    trained.install(module, trained.read_adapter(tmp_path))
    with torch.no_grad():
        # Not merged: PEFT merges the update of a tied head into the embedding, too.
        expected = model.eval()(tokens).logits
        torch.testing.assert_close(module(tokens).logits, expected, rtol=1e-5, atol=1e-5)
        assert (expected - make()(tokens).logits).abs().max() > 0.01


def test_a_whole_model_differs_from_the_base_by_its_update():
    for make, name in ((tiny_llama, "model.layers.0.mlp.up_proj"), (tiny_gpt2, "transformer.h.0.attn.c_attn")):
        base, tuned = make(), make()
        with torch.no_grad():
            weight_matrix(tuned.get_submodule(name))[2] += 1.0
        ((found, layer),) = trained.layers(base, trained.from_module(tuned), (name,))
        expected = torch.zeros_like(layer.base)
        expected[2] = 1.0
        assert found == name and layer.rank is None
        torch.testing.assert_close(layer.update, expected, rtol=0, atol=1e-6)


def saved(tmp_path, changes=None, **options):
    peft_model(tiny_llama, {"target_modules": LLAMA} | options).save_pretrained(tmp_path)
    file = tmp_path / trained.CONFIG
    file.write_text(json.dumps(json.loads(file.read_text()) | (changes or {})))
    return tmp_path


@pytest.mark.parametrize("start", ["pissa", "pissa_niter_4", "olora", "corda", "lora_ga", "loftq"])
def test_an_unconverted_adapter_is_refused_with_how_to_convert_it(start, tmp_path):
    folder = saved(tmp_path, {"init_lora_weights": start})
    with pytest.raises(UserError, match=f"initialised with '{start}'.*path_initial_model_for_weight_conversion"):
        trained.read_adapter(folder)


def test_a_converted_pissa_adapter_belongs_to_the_original_base(tmp_path):
    model = get_peft_model(tiny_llama(), LoraConfig(r=4, lora_alpha=6, target_modules=LLAMA, init_lora_weights="pissa"))
    model.save_pretrained(tmp_path / "init")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.mul_(1.1)
    model.save_pretrained(tmp_path / "out", path_initial_model_for_weight_conversion=str(tmp_path / "init"))
    merged, base = copy.deepcopy(model).merge_and_unload(), tiny_llama()
    for name, layer in trained.layers(base, trained.read_adapter(tmp_path / "out")):
        torch.testing.assert_close(layer.base, base.get_submodule(name).weight, rtol=0, atol=0)
        torch.testing.assert_close(layer.tuned, merged.get_submodule(name).weight, rtol=0, atol=2e-6)


def test_an_adapter_of_another_base_is_refused(tmp_path):
    adapter = trained.read_adapter(saved(tmp_path, {"base_model_name_or_path": "org/other-model"}))
    for base in (tiny_gpt2(), tiny_roberta()):
        with pytest.raises(UserError, match=r"another base model.*'other-model'"):
            list(trained.layers(base, adapter))
    narrow = tiny_llama(vocabulary=50)
    with pytest.raises(UserError, match="no 'lm_head' of the trained shape"):
        list(trained.layers(narrow, adapter))


def test_what_is_no_readable_adapter_is_named(tmp_path):
    with pytest.raises(UserError, match="not a folder"):
        trained.read_adapter(tmp_path / "absent")
    with pytest.raises(UserError, match=r"no adapter_config\.json"):
        trained.read_adapter(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match="whole checkpoint, not an adapter: give it as checkpoint="):
        trained.read_adapter(tmp_path)
    folder = saved(tmp_path / "lora")
    (folder / "adapter_model.safetensors").write_bytes(b"torn")
    with pytest.raises(UserError, match="cannot be read"):
        trained.read_adapter(folder)
    (folder / "adapter_model.safetensors").unlink()
    with pytest.raises(UserError, match="weights are gone"):
        trained.read_adapter(folder)


def test_other_kinds_of_adapters_are_refused(tmp_path):
    config = IA3Config(target_modules=["q_proj", "down_proj"], feedforward_modules=["down_proj"])
    get_peft_model(tiny_llama(), config).save_pretrained(tmp_path / "ia3")
    with pytest.raises(UserError, match="type IA3"):
        trained.read_adapter(tmp_path / "ia3")
    with pytest.raises(UserError, match="layer_replication"):
        trained.read_adapter(saved(tmp_path / "deep", {"layer_replication": [[0, 2], [1, 2]]}))
    with pytest.raises(UserError, match=r"lora_embedding_A.*linear layers only"):
        trained.read_adapter(saved(tmp_path / "embeddings", target_modules=["embed_tokens"]))
