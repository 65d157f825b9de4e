"""Small random models of every architecture the recipes name, and access to the real data where it is."""

from __future__ import annotations

import os

# Two workers and what they start share two cores: threads that wait for each other must not spin. Read at the import
# of numpy and torch, and by every process that a test starts.
os.environ |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}

from functools import cache
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

ROOT = Path(__file__).resolve().parent.parent
CONF = ROOT / "conf"

torch.set_num_threads(1)  # tiny models: threads only wait for each other


def pytest_configure(config):
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TQDM_DISABLE", "1")


def pytest_collection_modifyitems(items):
    """Files of whole commands come first, so that only short tests are left when a worker ends."""
    items.sort(key=lambda item: item.path.parent.name in ("contract", "equivalence", "unit"))


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data; the test is skipped, visibly, where EVA_BENCH_DATA is not set."""
    folder = os.environ.get("EVA_BENCH_DATA")
    if not folder:
        pytest.skip("EVA_BENCH_DATA is not set: no real data here")
    return Path(folder)


def method_names() -> list[str]:
    return sorted(path.stem for path in (CONF / "method").glob("*.yaml"))


@cache
def composed_method(name: str) -> DictConfig:
    """conf/method/<name>.yaml with its defaults: composed once, as hundreds of tests ask for it."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose(f"method/{name}")["method"]


def method_values(name: str, rank: int = 4, alpha: float = 6.0, **changes) -> dict:
    """Values of conf/method/<name>.yaml, for an adapter of the given rank."""
    adapter = {"rank": rank, "alpha": alpha, "scaling": None, "magnitude": None}
    config = OmegaConf.create({"method": composed_method(name), "adapter": adapter})
    return {"name": name} | OmegaConf.to_container(config, resolve=True)["method"] | changes


def tiny_llama(tied: bool = False, vocabulary: int = 60):
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocabulary, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=128, tie_word_embeddings=tied,
        bos_token_id=1, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


def tiny_gpt2():
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(vocab_size=60, n_embd=32, n_layer=2, n_head=4, n_positions=128, bos_token_id=1, eos_token_id=2)
    return GPT2LMHeadModel(config).eval()


ARCHITECTURES = {
    "llama": (tiny_llama, ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]),
    "llama_tied_head": (lambda: tiny_llama(tied=True), ["q_proj", "down_proj", "lm_head"]),
    "gpt2_conv1d": (tiny_gpt2, ["c_attn", "c_proj", "c_fc"]),
}


class FixedBatches:
    """Re-creatable calibration batches of random tokens, padded on the right."""

    def __init__(self, n: int = 6, vocabulary: int = 60):
        generator = torch.Generator().manual_seed(3)
        self.batches = []
        for _ in range(n):
            ids = torch.randint(3, vocabulary, (4, 20), generator=generator)
            mask = torch.ones_like(ids)
            mask[0, 15:] = 0
            self.batches.append({"input_ids": ids, "attention_mask": mask, "labels": ids.masked_fill(mask == 0, -100)})

    def __len__(self):
        return len(self.batches)

    def __iter__(self):
        return iter(self.batches)

    def loss(self, module, batch):
        return module(**batch).loss


@pytest.fixture
def tokens() -> torch.Tensor:
    return torch.randint(3, 60, (3, 17), generator=torch.Generator().manual_seed(5))
