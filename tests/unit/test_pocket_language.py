"""The committed pocket language model: its files, its tokenizer, what it can do and what it cannot do yet."""

import hashlib
import json
import re

import pytest

from pocket.datasets import gsm8k
from pocket.world import corpus

torch = pytest.importorskip("torch")
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM  # noqa: E402

from pocket.pretrain import language  # noqa: E402

FOLDER = language.FOLDER
MANIFEST = json.loads((FOLDER / "manifest.json").read_text())


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(FOLDER)


@pytest.fixture(scope="module")
def model():
    return AutoModelForCausalLM.from_pretrained(FOLDER, dtype=torch.float32).eval()


@torch.no_grad()
def complete(model, tokenizer, prompts, new_tokens):
    inputs = tokenizer(prompts, return_tensors="pt", padding=True)
    output = model.generate(**inputs, max_new_tokens=new_tokens, do_sample=False)
    return tokenizer.batch_decode(output[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)


def test_files_are_those_of_the_manifest():
    found = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in FOLDER.iterdir()
        if path.name != "manifest.json"
    }
    assert found == MANIFEST["sha256"]
    assert (FOLDER / "model.safetensors").stat().st_size <= 8_000_000


def test_manifest_names_the_text_that_the_corpus_still_writes():
    assert MANIFEST["corpus_version"] == corpus.VERSION
    assert MANIFEST["corpus_sha256_of_first_20000_documents"] == corpus.checksum(corpus.first_documents("train", 20000))


def test_architecture(model):
    assert isinstance(model, LlamaForCausalLM)
    assert model.num_parameters() == MANIFEST["parameters"] <= 2_000_000
    assert model.config.max_position_embeddings >= 512


def test_loss_on_unseen_text_is_that_of_the_manifest(model, tokenizer):
    assert language.held_out_loss(model, tokenizer) == pytest.approx(MANIFEST["held_out_loss"], abs=0.02)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "\n",
        "a\n\n\n b\t\tc \r\n d ",
        "Janet’s ducks lay 16 eggs; she sells 2.50$ each (1,234,567 in total).\n#### 18",
        "naïve Grüße – 日本語 🙂 \u200b\u0301 \x00",
        "\\frac{3x^2}{\\sqrt{2}} \\boxed{-7}",
        "12*3=<<12*3=36>>36 0007 200 201 1999",
    ],
)
def test_any_text_survives_tokenising(tokenizer, text):
    assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text
    assert tokenizer.decode(tokenizer.encode(text), skip_special_tokens=True) == text


def test_whole_numbers_are_single_tokens(tokenizer):
    for number in range(language.LARGEST_NUMBER + 1):
        assert len(tokenizer.encode(str(number), add_special_tokens=False)) == 1


def test_special_tokens(tokenizer):
    ids = tokenizer("Clara")["input_ids"]
    assert ids[0] == tokenizer.bos_token_id and ids[-1] != tokenizer.eos_token_id
    assert len({tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id}) == 3


def test_tokenizer_is_built_the_same_again(tokenizer):
    assert language.build_tokenizer().get_vocab() == tokenizer.get_vocab()


def test_model_can_calculate(model, tokenizer):
    asked = [(a, b) for a in range(7, 47, 8) for b in range(3, 45, 6)]
    lines = complete(model, tokenizer, [f"30 + 12 = 42; 9 - 4 = 5; {a} + {b} =" for a, b in asked], 2)
    right = sum(line.strip() == str(a + b) for line, (a, b) in zip(lines, asked, strict=True))
    assert right / len(asked) >= 0.9


def test_model_has_not_learnt_the_task(model, tokenizer):
    rows = gsm8k.generate("test", 100)
    answers = complete(model, tokenizer, [f"Question: {row['question']}\nAnswer:" for row in rows], 96)
    right = 0
    for row, answer in zip(rows, answers, strict=True):
        wanted = row["answer"].split("#### ")[1]
        strict = re.search(r"#### (\-?[0-9\.\,]+)", answer)
        numbers = re.findall(r"-?\d+", answer)
        right += bool(strict and strict[1] == wanted) or bool(numbers and numbers[-1] == wanted)
    assert right <= 5


def test_another_seed_is_another_pretraining(tokenizer):
    one, other, again = (language.build_model(tokenizer, seed).model.embed_tokens.weight for seed in (0, 1, 0))
    assert torch.equal(one, again) and not torch.equal(one, other)
    streams = [language.loop.stream(seed) for seed in (0, 1)]
    assert streams[0] == "train" and corpus.first_documents(streams[0], 5) != corpus.first_documents(streams[1], 5)
