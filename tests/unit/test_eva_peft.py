"""The functions that PEFT has under the same names, on PEFT models."""

import inspect
import subprocess
import sys

import peft
import pytest
import torch
from peft import EvaConfig, LoraConfig, PeftModel, get_peft_model
from torch import nn

from eva_bench.eva import (
    EvaError,
    SolverConfig,
    get_eva_state_dict,
    initialize_eva,
    initialize_lora_eva_weights,
)
from tests.conftest import ROOT, FixedBatches, tiny_gpt2, tiny_llama


def lora_model(base=None, eva: dict | None = None, low_cpu_mem_usage=False, **options) -> PeftModel:
    values = {"r": 4, "lora_alpha": 6, "target_modules": "all-linear", "init_lora_weights": "eva"} | options
    config = LoraConfig(**values, eva_config=EvaConfig(**(eva or {})) if eva is not None else None)
    return get_peft_model(base or tiny_llama(), config, low_cpu_mem_usage=low_cpu_mem_usage)


def lora_layers(model) -> dict[str, nn.Module]:
    return {name: module for name, module in model.named_modules() if hasattr(module, "lora_A")}


def quietly(function, *args, **options):
    return function(*args, show_progress_bar=False, **options)


@pytest.mark.parametrize("ours", [get_eva_state_dict, initialize_lora_eva_weights])
def test_parameters_and_defaults_are_those_of_peft(ours):
    theirs = inspect.signature(getattr(peft.tuners.lora.eva, ours.__name__)).parameters
    parameters = inspect.signature(ours).parameters
    assert list(parameters)[: len(theirs)] == list(theirs)
    assert all(parameters[name].default == theirs[name].default for name in theirs)
    assert all(p.kind is p.KEYWORD_ONLY for name, p in parameters.items() if name not in theirs)


@pytest.mark.parametrize("rho", [1.0, 2.0])
@pytest.mark.parametrize("low_cpu_mem_usage", [False, True])
def test_ranks_scaling_and_function_are_as_peft_promises(rho, low_cpu_mem_usage, tokens):
    model = lora_model(eva={"rho": rho}, low_cpu_mem_usage=low_cpu_mem_usage)
    quietly(initialize_lora_eva_weights, model, FixedBatches())
    layers = lora_layers(model)
    assert sum(layer.r["default"] for layer in layers.values()) == 4 * 14
    assert max(layer.r["default"] for layer in layers.values()) <= 4 * rho
    assert all(layer.scaling["default"] == pytest.approx(1.5) for layer in layers.values())
    assert not any(parameter.is_meta for parameter in model.parameters())
    for layer in layers.values():
        rows = layer.lora_A["default"].weight
        assert torch.allclose(rows @ rows.T, torch.eye(len(rows)), atol=1e-5)
    assert torch.allclose(model(tokens).logits, tiny_llama()(tokens).logits, atol=1e-6)


def test_state_dicts_go_from_one_to_the_other_and_can_be_used_again(tmp_path, tokens):
    state = quietly(get_eva_state_dict, lora_model(eva={}), FixedBatches())
    torch.save(state, tmp_path / "state.pt")
    ours, again, theirs = (lora_model(eva={}) for _ in range(3))
    initialize_lora_eva_weights(ours, eva_state_dict=state)
    initialize_lora_eva_weights(again, eva_state_dict=torch.load(tmp_path / "state.pt"))
    peft.initialize_lora_eva_weights(theirs, eva_state_dict=dict(state))
    reference = {name: value for name, value in theirs.state_dict().items() if "lora_A" in name}
    for model in (ours, again):
        found = {name: value for name, value in model.state_dict().items() if "lora_A" in name}
        assert found.keys() == reference.keys()
        assert all(torch.equal(found[name], reference[name]) for name in found)
        assert model.peft_config["default"].rank_pattern == theirs.peft_config["default"].rank_pattern


def test_a_saved_adapter_loads_in_stock_peft(tmp_path, tokens):
    model = lora_model(eva={"rho": 2.0})
    quietly(initialize_lora_eva_weights, model, FixedBatches())
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.05
    model.save_pretrained(tmp_path)
    assert torch.allclose(
        PeftModel.from_pretrained(tiny_llama(), tmp_path)(tokens).logits, model(tokens).logits, atol=1e-5
    )


def test_whitening_divides_once_even_where_layers_share_their_input():
    plain, white = (
        quietly(get_eva_state_dict, lora_model(eva={"whiten": w, "rho": 1.0}), FixedBatches()) for w in (False, True)
    )
    scales = {name: (white[name] / plain[name]).nanmean(1) for name in plain}
    q, k = (scales[f"base_model.model.model.layers.0.self_attn.{part}_proj"] for part in "qk")
    assert torch.allclose(q, k) and (q.diff() > 0).all() and not torch.allclose(q, torch.ones_like(q))


def test_the_label_mask_is_honoured_with_its_value():
    batches = list(FixedBatches())
    for batch in batches:
        batch["labels"][:, :14] = -7
    masked = lora_model(eva={"use_label_mask": True, "label_mask_value": -7})
    open_ = lora_model(eva={"use_label_mask": False})
    a, b = (quietly(get_eva_state_dict, model, batches) for model in (masked, open_))
    assert any(a[name].shape != b[name].shape or not torch.allclose(a[name], b[name], atol=1e-3) for name in a)
    for batch in batches:
        batch["labels"][:, :14] = -100
    c = quietly(get_eva_state_dict, lora_model(eva={"use_label_mask": True}), batches)
    assert all(torch.allclose(a[name], c[name], atol=1e-3) for name in a if a[name].shape == c[name].shape)


def test_alpha_stays_where_scaling_factors_are_not_to_be_adjusted():
    model = lora_model(eva={"adjust_scaling_factors": False})
    quietly(initialize_lora_eva_weights, model, FixedBatches())
    layers = lora_layers(model).values()
    assert {layer.lora_alpha["default"] for layer in layers} == {6}
    assert len({layer.scaling["default"] for layer in layers}) > 1


def test_rslora_keeps_one_scale():
    model = lora_model(eva={}, use_rslora=True)
    quietly(initialize_lora_eva_weights, model, FixedBatches())
    assert {round(layer.scaling["default"], 6) for layer in lora_layers(model).values()} == {3.0}


def test_adapters_of_a_bf16_model_keep_their_type_where_ranks_change():
    model = lora_model(tiny_llama().to(torch.bfloat16), eva={}, low_cpu_mem_usage=False)
    before = {p.dtype for n, p in model.named_parameters() if "lora_" in n}
    initialize_eva(model, FixedBatches())
    assert {p.dtype for n, p in model.named_parameters() if "lora_" in n} == before


def test_own_functions_for_inputs_and_rows_are_used():
    calls = []

    def forward(model, batch):
        calls.append("forward")
        return model(input_ids=batch["input_ids"])

    def first_half(layer_input, model_input, name):
        return layer_input[0][:, :model_input].reshape(-1, layer_input[0].shape[-1])

    options = {"forward_fn": forward, "prepare_model_inputs_fn": lambda batch, config: 7}
    model = lora_model(eva={"rho": 1.0})
    names = list(lora_layers(model))
    one = quietly(get_eva_state_dict, model, FixedBatches(), prepare_layer_inputs_fn=first_half, **options)
    each = dict.fromkeys(names, first_half)
    many = quietly(get_eva_state_dict, model, FixedBatches(), prepare_layer_inputs_fn=each, **options)
    assert calls and list(each) == names  # PEFT empties the mapping
    assert all(torch.equal(one[name], many[name]) for name in one)
    halves = [{"input_ids": batch["input_ids"][:, :7]} for batch in FixedBatches()]
    causal = quietly(get_eva_state_dict, model, halves)
    assert all(torch.allclose(one[name], causal[name], atol=1e-3) for name in one)
    with pytest.raises(EvaError, match="'nowhere'"):
        quietly(get_eva_state_dict, model, FixedBatches(), prepare_layer_inputs_fn={"nowhere": first_half}, **options)


def test_layers_that_are_not_linear_keep_their_initialisation_and_are_named():
    model = lora_model(eva={}, target_modules=["q_proj", "embed_tokens"])
    with pytest.warns(UserWarning, match="embed_tokens"):
        quietly(initialize_lora_eva_weights, model, FixedBatches())


class Experts(nn.Module):
    """Two experts; the second sees one row of a batch."""

    def __init__(self):
        super().__init__()
        self.mix, self.experts = nn.Linear(16, 16), nn.ModuleList([nn.Linear(16, 16), nn.Linear(16, 16)])

    def forward(self, input_ids, **_):
        x = self.mix(input_ids)
        return self.experts[0](x[1:]), self.experts[1](x[:1])


def test_an_expert_with_too_few_rows_keeps_its_random_rows_and_is_named():
    batches = [{"input_ids": torch.randn(60, 16, generator=torch.Generator().manual_seed(i))} for i in range(3)]
    model = lora_model(Experts(), eva={"rho": 1.0}, target_modules=["mix", "experts.0", "experts.1"])
    before = model.base_model.model.experts[1].lora_A["default"].weight.clone()
    with pytest.warns(UserWarning, match=r"experts\.1"):
        result = initialize_eva(model, batches)
    assert result.skipped == {"base_model.model.experts.1": 3}
    assert torch.equal(model.base_model.model.experts[1].lora_A["default"].weight, before)
    assert result.layers["base_model.model.experts.0"].rows == 3 * 59


def test_a_second_call_replaces_the_ranks_of_the_first():
    model = lora_model(eva={"rho": 2.0})
    initialize_eva(model, FixedBatches())
    ranks = dict(model.peft_config["default"].rank_pattern)
    result = initialize_eva(model, FixedBatches())
    assert ranks and model.peft_config["default"].rank_pattern == ranks
    before = {name: value.clone() for name, value in model.state_dict().items()}
    initialize_eva(model, result=result)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_rho_and_label_mask_come_from_the_eva_config():
    model = lora_model(eva={"rho": 1.0, "use_label_mask": False})
    initialize_eva(model, FixedBatches())
    assert {layer.r["default"] for layer in lora_layers(model).values()} == {4}


@pytest.mark.parametrize("call", [initialize_eva, initialize_lora_eva_weights])
def test_models_that_do_not_fit_are_refused_in_one_sentence(call):
    with pytest.raises(EvaError, match="must be a PeftModel"):
        call(tiny_llama(), FixedBatches())
    with pytest.raises(EvaError, match="no adapter 'other'; it has default"):
        call(lora_model(eva={}), FixedBatches(), adapter_name="other")
    with pytest.raises(EvaError, match="rank_pattern"):
        call(lora_model(eva={}, rank_pattern={"q_proj": 2}), FixedBatches())
    with pytest.raises(EvaError, match="no LoRA layer"):
        call(lora_model(eva={}, target_modules=["embed_tokens"]), FixedBatches())


def test_requests_that_peft_refuses_are_refused():
    with pytest.raises(ValueError, match="init_lora_weights='eva'"):
        initialize_lora_eva_weights(lora_model(init_lora_weights=True), FixedBatches())
    with pytest.raises(ValueError, match="dataloader is required"):
        initialize_lora_eva_weights(lora_model(eva={}))
    with pytest.raises(ValueError, match="dataloader is empty"):
        quietly(initialize_lora_eva_weights, lora_model(eva={}), [])
    with pytest.raises(ValueError, match="peft_config is required"):
        get_eva_state_dict(tiny_llama(), FixedBatches())


def without(*keys):
    return [{key: value for key, value in batch.items() if key not in keys} for batch in FixedBatches()]


def changed(key, value):
    return [batch | {key: torch.full_like(batch[key], value)} for batch in FixedBatches()]


def test_batches_without_attention_mask_count_in_full():
    result = initialize_eva(lora_model(eva={"use_label_mask": False}), without("attention_mask"))
    assert result.rows == result.batches * 80


def test_a_batch_in_which_all_is_masked_adds_nothing():
    batches = changed("attention_mask", 0)[:1] + list(FixedBatches())
    result = initialize_eva(lora_model(eva={"use_label_mask": False}), batches, config=SolverConfig(tolerance=0))
    assert result.rows == 6 * 75


def test_labels_that_are_all_masked_are_named():
    with pytest.raises(EvaError, match="no position counts"):
        initialize_eva(lora_model(eva={"use_label_mask": True}), changed("labels", -100))


@pytest.mark.parametrize("make", [tiny_llama, tiny_gpt2])
def test_nan_in_the_activations_names_the_layer(make):
    base = make()
    with torch.no_grad():
        next(base.parameters())[5] = torch.nan
    model = lora_model(
        base, eva={}, target_modules=["q_proj"] if make is tiny_llama else ["c_attn"], fan_in_fan_out=make is tiny_gpt2
    )
    with pytest.raises(EvaError, match="contain NaN"):
        initialize_eva(model, FixedBatches())


def test_import_brings_nothing_of_the_suite():
    code = (
        "import sys, eva_bench.eva; from eva_bench.eva import initialize_lora_eva_weights\n"
        "heavy = {'hydra', 'omegaconf', 'lm_eval', 'timm', 'metaworld', 'pandas', 'wandb', 'datasets'}\n"
        "loaded = heavy & set(sys.modules)\n"
        "assert not loaded, loaded"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_import_of_the_engine_alone_leaves_peft_out():
    code = "import sys, eva_bench.eva; assert 'peft' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
