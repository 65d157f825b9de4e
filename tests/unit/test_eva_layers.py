"""Kinds of layers and models that PEFT adapts: Conv1D, embeddings, 4 and 8 bits, weights that come and go."""

import pytest
import torch
from accelerate import dispatch_model
from peft import EvaConfig, LoraConfig, PeftModel, get_peft_model
from torch import nn
from transformers import BitsAndBytesConfig, LlamaConfig, LlamaForCausalLM

from eva_bench.eva import EvaError, initialize_eva, initialize_lora_eva_weights
from tests.conftest import FixedBatches, tiny_gpt2, tiny_llama

TARGETS = ["q_proj", "k_proj", "down_proj"]


def adapted(base, low_cpu_mem_usage=False, **options) -> PeftModel:
    values = {"r": 4, "lora_alpha": 6, "target_modules": TARGETS, "init_lora_weights": "eva"} | options
    config = LoraConfig(**values, eva_config=EvaConfig(rho=1.0, use_label_mask=False))
    return get_peft_model(base, config, low_cpu_mem_usage=low_cpu_mem_usage)


def rows_of_A(model) -> dict[str, torch.Tensor]:
    return {name: value.detach() for name, value in model.named_parameters() if "lora_A" in name}


def initialised(model) -> dict[str, torch.Tensor]:
    initialize_lora_eva_weights(model, FixedBatches(), show_progress_bar=False)
    return rows_of_A(model)


def agreement(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """How much of each row space lies within the other's, at worst; 1 if they are the same."""
    assert one.keys() == other.keys()
    return min(float((rows.float() @ other[name].float().T).square().sum()) / len(rows) for name, rows in one.items())


@torch.no_grad()
def worst_capture(model, rows: dict[str, torch.Tensor]) -> float:
    """Variance of each layer's own inputs within its rows of A, over the most that so many rows can hold."""
    seen, mask, handles = {name: [] for name in rows}, None, []
    for name, kept in seen.items():
        layer = model.get_submodule(name.removesuffix(".lora_A.default.weight"))
        hook = lambda _, args, kept=kept: kept.append(args[0][mask].double())  # noqa: E731
        handles.append(layer.register_forward_pre_hook(hook))
    for batch in FixedBatches():
        mask = batch["attention_mask"].bool()
        model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
    for handle in handles:
        handle.remove()
    shares = []
    for name, kept in seen.items():
        covariance, A = torch.cov(torch.cat(kept).T), rows[name].double()
        shares.append(float((A @ covariance * A).sum() / torch.linalg.eigvalsh(covariance)[-len(A) :].sum()))
    return min(shares)


@pytest.mark.parametrize("low_cpu_mem_usage", [False, True])
def test_conv1d_layers_get_rows_of_their_inputs_width(low_cpu_mem_usage, tokens):
    model = adapted(tiny_gpt2(), low_cpu_mem_usage, target_modules=["c_attn", "mlp.c_proj"], fan_in_fan_out=True)
    rows = initialised(model)
    assert {value.shape for value in rows.values()} == {(4, 32), (4, 128)}
    assert all(torch.allclose(value @ value.T, torch.eye(4), atol=1e-5) for value in rows.values())
    assert torch.allclose(model(tokens).logits, tiny_gpt2()(tokens).logits, atol=1e-6)


def test_embeddings_alone_are_refused_and_beside_others_left_as_they_are():
    with pytest.raises(EvaError, match="no LoRA layer named 'default' on a Linear or Conv1D"):
        initialize_eva(adapted(tiny_llama(), target_modules=["embed_tokens"]), FixedBatches())
    model = adapted(tiny_llama(), target_modules=["embed_tokens", "q_proj"])
    embedding = model.get_submodule("base_model.model.model.embed_tokens")
    before = embedding.lora_embedding_A["default"].clone(), embedding.lora_embedding_B["default"].clone()
    with pytest.warns(UserWarning, match="embed_tokens"):
        initialize_eva(model, FixedBatches())
    after = embedding.lora_embedding_A["default"], embedding.lora_embedding_B["default"]
    assert all(torch.equal(*pair) for pair in zip(before, after, strict=True))


class Bytes(nn.Linear):
    """Weights as whole numbers, which are multiplied only after they were scaled back."""

    def __init__(self, layer: nn.Linear):
        super().__init__(layer.in_features, layer.out_features, bias=False)
        self.scale = layer.weight.detach().abs().amax(1, keepdim=True) / 127
        self.weight = nn.Parameter((layer.weight.detach() / self.scale).round().to(torch.int8), requires_grad=False)

    def forward(self, x):
        return nn.functional.linear(x, self.weight.to(x.dtype) * self.scale)


@pytest.mark.parametrize("low_cpu_mem_usage", [False, True])
def test_weights_that_are_no_floating_point_numbers_are_left_alone(low_cpu_mem_usage):
    base, scaled = tiny_llama(), tiny_llama()
    for name, layer in list(base.named_modules()):
        if name.endswith("_proj"):
            parent, _, child = name.rpartition(".")
            setattr(base.get_submodule(parent), child, Bytes(layer))
            kept = base.get_submodule(name)
            scaled.get_submodule(name).weight.data = kept.weight * kept.scale
    rows = initialised(adapted(base, low_cpu_mem_usage))
    assert all(value.dtype == torch.float32 for value in rows.values())
    assert agreement(rows, initialised(adapted(scaled))) > 0.9999
    assert base.model.layers[0].self_attn.q_proj.base_layer.weight.dtype == torch.int8


@pytest.mark.parametrize("bits", [4, 8])
@torch.no_grad()
def test_bases_of_few_bits(bits, tmp_path, tokens):
    pytest.importorskip("bitsandbytes")
    torch.manual_seed(0)
    shape = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4}
    whole = LlamaForCausalLM(LlamaConfig(vocab_size=100, **shape)).eval()  # 4 bits need inputs in blocks of 64
    whole.save_pretrained(tmp_path)
    quantised = BitsAndBytesConfig(load_in_4bit=bits == 4, load_in_8bit=bits == 8)
    base = LlamaForCausalLM.from_pretrained(tmp_path, quantization_config=quantised, device_map="cpu")
    kind = type(base.model.layers[0].self_attn.q_proj).__name__
    assert kind == {4: "Linear4bit", 8: "Linear8bitLt"}[bits]
    before = base(tokens).logits
    model = adapted(base)
    rows = initialised(model)
    assert worst_capture(model, rows) > 0.98
    assert torch.allclose(model(tokens).logits, before, atol=1e-2)
    model.save_pretrained(tmp_path / "adapter")
    assert agreement(rows, rows_of_A(PeftModel.from_pretrained(whole, tmp_path / "adapter"))) > 0.9999


def test_layers_whose_weights_come_and_go_with_the_pass(tmp_path, tokens):
    """A `device_map` with a part on disk: those weights are on the meta device except during their own call."""
    base = tiny_llama()
    places = {name: "cpu" for name, _ in base.named_children()} | {"model.layers.1": "disk"}
    del places["model"]
    places |= {f"model.{name}": "cpu" for name, _ in base.model.named_children() if name != "layers"}
    places["model.layers.0"] = "cpu"
    base = dispatch_model(base, places, main_device="cpu", offload_dir=tmp_path, force_hooks=True)
    assert base.model.layers[1].mlp.down_proj.weight.is_meta
    state = initialize_eva(adapted(base), FixedBatches())
    whole = initialize_eva(adapted(tiny_llama()), FixedBatches())
    assert list(state.layers) == list(whole.layers) and state.rows == whole.rows
    for name, layer in state.layers.items():
        assert torch.allclose(layer.components, whole.layers[name].components, atol=1e-5)
