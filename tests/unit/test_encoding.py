"""Text to tokens: the prompt is masked, the answer closed, truncation counted, padding invisible to the loss."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM

from eva_bench.models import language
from eva_bench.system.errors import UserError
from tasks.language import IGNORE, encode, pad
from tests.checkpoints import KINDS, write_checkpoint
from tests.settings import data_settings, model_settings
from tests.unit.test_train import task  # noqa: F401 - a fixture

PAIRS = [
    ("Question: How many eggs?\nAnswer:", " She has 16 eggs.\n#### 16"),
    ("Question: And now, é?\nAnswer:", " 3*6=<<3*6=18>>18\n#### 18"),
]


LANGUAGE = [name for name, kind in KINDS.items() if kind.model is AutoModelForCausalLM]


@pytest.fixture(scope="module", params=LANGUAGE)
def bundle(request, tmp_path_factory):
    folder = write_checkpoint(request.param, tmp_path_factory.mktemp(request.param))
    model = model_settings(request.param, folder, targets=["q_proj"], dtype="float32", attention="eager")
    return language.load(model, data_settings())


def test_only_the_answer_is_learnt_and_it_is_closed(bundle):
    tokenizer = bundle.processor
    data = encode(PAIRS, tokenizer, 512, "truncate", loss_on_prompt=False)
    assert data.facts == {"rows": 2, "truncated": 0, "dropped": 0}
    for (prompt, answer), example in zip(PAIRS, data.examples, strict=True):
        learnt = [label for label in example["labels"] if label != IGNORE]
        assert learnt[-1] == tokenizer.eos_token_id and learnt.count(tokenizer.eos_token_id) == 1
        assert tokenizer.decode(learnt[:-1]).strip() == answer.strip()
        assert tokenizer.decode(example["input_ids"], skip_special_tokens=True).strip() == prompt + answer
        assert len(example["labels"]) == len(example["input_ids"])
        border = len(example["labels"]) - len(learnt)
        assert example["labels"][:border] == [IGNORE] * border and example["input_ids"][border:] == learnt


def test_the_beginning_is_marked_where_the_model_expects_it(bundle):
    tokenizer = bundle.processor
    first = encode(PAIRS, tokenizer, 512, "truncate", False).examples[0]["input_ids"]
    adds = tokenizer("x")["input_ids"][0] == tokenizer.bos_token_id and tokenizer.bos_token_id is not None
    assert (first[0] == tokenizer.bos_token_id and tokenizer.bos_token_id is not None) == adds
    if adds:
        assert first.count(tokenizer.bos_token_id) == 1


def test_loss_on_the_prompt_as_well(bundle):
    (example, _) = encode(PAIRS, bundle.processor, 512, "truncate", loss_on_prompt=True).examples
    assert example["labels"] == example["input_ids"]


def test_rows_that_are_too_long_are_counted(bundle):
    whole = encode(PAIRS, bundle.processor, 512, "truncate", False).examples
    limit = max(len(e["input_ids"]) for e in whole) - 1
    cut = encode(PAIRS, bundle.processor, limit, "truncate", False)
    longer = sum(len(e["input_ids"]) > limit for e in whole)
    assert longer >= 1 and cut.facts == {"rows": 2, "truncated": longer, "dropped": 0}
    assert max(len(e["input_ids"]) for e in cut.examples) == limit
    short = [PAIRS[0], ("Q:", " 1")]
    dropped = encode(short, bundle.processor, 12, "drop", False)
    assert dropped.facts == {"rows": 2, "truncated": 0, "dropped": 1} and len(dropped.examples) == 1
    cut = encode(short, bundle.processor, 12, "truncate", False)
    assert cut.facts["dropped"] == 1  # no token of its answer is left
    with pytest.raises(UserError, match=r"data\.max_length=3"):
        encode(PAIRS, bundle.processor, 3, "truncate", False)


def test_padding_and_company_do_not_change_a_loss(bundle, task):  # noqa: F811
    examples = encode([*PAIRS, ("Q:", " 1")], bundle.processor, 512, "truncate", False).examples
    with torch.no_grad():
        together, count = task.loss(bundle.module, pad(examples, bundle.processor.pad_token_id, "cpu"))
        alone = [task.loss(bundle.module, pad([example], 0, "cpu")) for example in examples]
    assert count == sum(n for _, n in alone) == sum(task.loss_count(example) for example in examples)
    assert torch.allclose(together, sum(loss for loss, _ in alone), rtol=1e-5)


def test_shapes_of_a_padded_batch():
    batch = pad([{"input_ids": [5, 6, 7], "labels": [IGNORE, 6, 7]}, {"input_ids": [8], "labels": [8]}], 0, "cpu")
    assert batch["input_ids"].tolist() == [[5, 6, 7], [8, 0, 0]] and batch["attention_mask"].tolist() == [
        [1, 1, 1],
        [1, 0, 0],
    ]
    assert batch["labels"].tolist() == [[IGNORE, 6, 7], [8, IGNORE, IGNORE]]
