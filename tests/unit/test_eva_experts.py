"""Experts that share one parameter: rows, ranks, and what is left alone."""

import pytest
import torch
from peft import EvaConfig, LoraConfig, PeftModel, get_peft_model
from transformers import MixtralConfig, MixtralForCausalLM

from eva_bench.eva import get_eva_state_dict, initialize_eva, initialize_lora_eva_weights
from tests.conftest import FixedBatches

EXPERTS = "base_model.model.model.layers.0.mlp.experts"
FIRST, SECOND = f"{EXPERTS}.base_layer", EXPERTS  # PEFT nests the layers on gate_up_proj and down_proj


def mixtral(never: int | None = None) -> MixtralForCausalLM:
    """A random model of four experts, two for each token; one may never be chosen."""
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 2, "num_key_value_heads": 2}
    model = MixtralForCausalLM(MixtralConfig(vocab_size=100, num_hidden_layers=1, num_local_experts=4, **shape)).eval()
    if never is not None:
        block = model.model.layers[0].mlp
        block.gate.register_forward_hook(lambda _, args, out: (*out[:2], torch.where(out[2] == never, 0, out[2])))
    return model


def adapted(base, low_cpu_mem_usage=False, **options) -> PeftModel:
    values = {"r": 2, "target_modules": "all-linear", "init_lora_weights": "eva"} | options
    config = LoraConfig(**values, eva_config=EvaConfig(rho=2.0, use_label_mask=False))
    return get_peft_model(base, config, low_cpu_mem_usage=low_cpu_mem_usage)


def rows_of_experts(base, batches) -> dict[tuple[str, int], torch.Tensor]:
    """What each expert multiplies, written out for Mixtral, padding left out."""
    experts, found = base.model.layers[0].mlp.experts, {}
    calls = []
    handle = experts.register_forward_hook(lambda _, args, out: calls.append(args[:2]))
    with torch.no_grad():
        for batch in batches:
            base(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
            hidden, chosen = calls.pop()
            for token in batch["attention_mask"].flatten().nonzero()[:, 0].tolist():
                for expert in set(chosen[token].tolist()):
                    x = hidden[token]
                    gate, up = (experts.gate_up_proj[expert] @ x).chunk(2)
                    found.setdefault((FIRST, expert), []).append(x)
                    found.setdefault((SECOND, expert), []).append(torch.nn.functional.silu(gate) * up)
    handle.remove()
    return {key: torch.stack(rows).double() for key, rows in found.items()}


@pytest.mark.parametrize("low_cpu_mem_usage", [False, True])
def test_every_expert_gets_the_directions_of_its_own_rows(low_cpu_mem_usage, tokens):
    model = adapted(mixtral(), low_cpu_mem_usage)
    with pytest.warns(UserWarning, match=r"mlp\.gate'"):  # the router has no experts
        initialize_lora_eva_weights(model, FixedBatches(), show_progress_bar=False)
    rows = rows_of_experts(mixtral(), FixedBatches())
    assert len(rows) == 8
    for (name, expert), x in rows.items():
        layer = model.get_submodule(name)
        A = layer.lora_A["default"].weight.view(4, -1, x.shape[1])[expert].double()
        covariance = torch.cov(x.T)
        assert A.shape[0] == (4 if name == FIRST else 2)  # PEFT doubles the rank where it fused two targets
        assert torch.allclose(A @ A.T, torch.eye(len(A)).double(), atol=1e-5)
        best = float(torch.linalg.eigvalsh(covariance)[-len(A) :].sum())
        assert float((A @ covariance * A).sum()) == pytest.approx(best, rel=1e-3)
        assert not layer.lora_B["default"].weight.any() and not hasattr(layer, "expert")
    assert not any(parameter.is_meta for parameter in model.parameters())
    assert torch.allclose(model(tokens).logits, mixtral()(tokens).logits, atol=1e-6)


@pytest.mark.filterwarnings("ignore:1 LoRA layers keep")
def test_an_adapter_with_experts_is_saved_for_stock_peft(tmp_path, tokens):
    model = adapted(mixtral())
    initialize_eva(model, FixedBatches())
    ranks = dict(model.peft_config["default"].rank_pattern)
    assert len(ranks) > 1  # those of the attention were redistributed
    initialize_eva(model, FixedBatches())
    assert model.peft_config["default"].rank_pattern == ranks
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.05
    model.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(mixtral(), tmp_path)
    assert torch.allclose(loaded(tokens).logits, model(tokens).logits, atol=1e-5)


def test_an_expert_that_is_never_chosen_keeps_its_random_rows():
    parameters = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
    model = adapted(mixtral(never=3), target_modules=["q_proj"], target_parameters=parameters)
    layer = model.get_submodule(FIRST)
    before = layer.lora_A["default"].weight.view(4, 2, 16).clone()
    state = get_eva_state_dict(model, FixedBatches(), show_progress_bar=False)
    assert f"{FIRST}.expert.2" in state and f"{FIRST}.expert.3" not in state
    with pytest.warns(UserWarning, match="2 LoRA layers keep .* 1 of 4 experts"):
        initialize_lora_eva_weights(model, eva_state_dict=state)
    after = layer.lora_A["default"].weight.view(4, 2, 16)
    assert torch.equal(after[3], before[3]) and not torch.isclose(after[:3], before[:3]).any(2).all()


def test_a_rank_pattern_of_experts_is_no_reason_to_refuse():
    model = adapted(mixtral())
    assert model.peft_config["default"].rank_pattern  # PEFT's own, for what it fused
    with pytest.warns(UserWarning, match="router|gate"):
        result = initialize_eva(model, FixedBatches())
    assert sum(name.startswith(EXPERTS) for name in result.layers) == 8


def test_own_functions_for_rows_leave_experts_as_they_are():
    model = adapted(mixtral())
    before = model.get_submodule(SECOND).lora_A["default"].weight.clone()
    with pytest.warns(UserWarning, match="3 LoRA layers keep"):
        initialize_lora_eva_weights(
            model,
            FixedBatches(),
            prepare_layer_inputs_fn=lambda layer_input, *_: layer_input[0].flatten(0, -2),
            show_progress_bar=False,
        )
    assert torch.equal(model.get_submodule(SECOND).lora_A["default"].weight, before)
