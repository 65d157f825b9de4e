"""What all tasks for causal language models share: encoding, padding, the token loss."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eva_bench.models.bundle import ModelBundle
from eva_bench.settings.schema import DataSettings, TrainSettings
from eva_bench.system.errors import UserError
from eva_bench.task import Batch, Example, Task, TrainData, task_config

IGNORE = -100  # label of positions that do not enter the loss


@task_config
class LanguageTask(Task):
    """Prompt and answer in, next-token loss out. `harness` names a task YAML in tasks/lm_eval/.

    `format.prompt` is a template over the row's text, `format.answer` over its answer.
    """

    harness: str
    eval_prompt: str

    @abstractmethod
    def texts(self, rows: Sequence[dict], dataset: str) -> list[dict[str, str]]:
        """Rows as the fields of the templates.

        Args:
            rows: of a data set.
            dataset: the manifest's name.

        Returns:
            For every row its prompt's fields and its answer.

        Raises:
            UserError: names rows without an answer.
        """

    def pair(self, text: dict[str, str]) -> tuple[str, str]:
        """Prompt and answer of one row.

        With `format.prompt_with_input` (Alpaca), what follows the first line break of a question goes into a separate
        block.
        """
        answer = self.format["answer"].format(**text)
        if "prompt_with_input" in self.format and "\n" in text["question"]:
            question, _, more = text["question"].partition("\n")
            return self.format["prompt_with_input"].format(question=question, input=more), answer
        return self.format["prompt"].format(**text), answer

    def train_data(
        self, rows: Sequence[dict], dataset: str, bundle: ModelBundle, data: DataSettings, train: TrainSettings
    ) -> TrainData:
        """Prompts and answers as tokens; see `Task.train_data`."""
        pairs = [self.pair(text) for text in self.texts(rows, dataset)]
        return encode(pairs, bundle.processor, data.max_length, data.too_long, train.loss_on_prompt)

    def reference_examples(
        self, rows: Sequence[dict], dataset: str, bundle: ModelBundle, data: DataSettings
    ) -> list[Example]:
        """The evaluation rows with their reference answers, for the loss before and after training."""
        pairs = [self.pair(text) for text in self.texts(rows, dataset)]
        return encode(pairs, bundle.processor, data.max_length, "truncate", loss_on_prompt=False).examples

    def collate(self, examples: Sequence[Example], bundle: ModelBundle) -> Batch:
        """Token ids, attention mask and labels, padded on the right; see `Task.collate`."""
        return pad(examples, bundle.processor.pad_token_id, next(bundle.module.parameters()).device)

    def loss(self, module: nn.Module, batch: Batch) -> tuple[Tensor, int]:
        """Next-token cross-entropy summed over labelled positions."""
        labels = batch["labels"][:, 1:]  # (n, t-1)
        first = int((labels != IGNORE).any(0).int().argmax())  # logits are costly: none before the first answer
        inputs = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
        logits = module(**inputs, use_cache=False, logits_to_keep=batch["labels"].shape[1] - first).logits
        labels = labels[:, first:]
        loss = F.cross_entropy(
            logits[:, :-1].reshape(-1, logits.shape[-1]).float(),
            labels.reshape(-1),
            ignore_index=IGNORE,
            reduction="sum",
        )
        return loss, int((labels != IGNORE).sum())

    def loss_count(self, example: Example) -> int:
        """The number of labelled positions."""
        return sum(label != IGNORE for label in example["labels"][1:])


def encode(pairs, tokenizer, max_length: int, too_long: str, loss_on_prompt: bool) -> TrainData:
    """Token ids and labels of (prompt, answer) pairs; an end-of-sequence token closes each answer.

    Prompt and answer are tokenised together, and what the prompt alone gives is masked up to where the two
    agree: a token that spans the border belongs to the answer.

    Args:
        pairs: prompts and answers.
        tokenizer: the model's.
        max_length: tokens of an example.
        too_long: what happens to longer ones, "truncate" or "drop"; an example without a token of its answer is
            dropped in any case.
        loss_on_prompt: whether tokens of the prompt are labels, too.

    Raises:
        UserError: no example is left.
    """
    prompts = tokenizer([prompt for prompt, _ in pairs])["input_ids"]
    wholes = tokenizer([prompt + answer for prompt, answer in pairs])["input_ids"]
    examples, truncated, dropped = [], 0, 0
    for prompt, whole in zip(prompts, wholes, strict=True):
        if whole[-1] != tokenizer.eos_token_id:
            whole = [*whole, tokenizer.eos_token_id]
        if prompt[-1] == tokenizer.eos_token_id:
            prompt = prompt[:-1]
        border = next((i for i, (a, b) in enumerate(zip(prompt, whole, strict=False)) if a != b), len(prompt))
        if len(whole) > max_length:
            if too_long == "drop" or border >= max_length:
                dropped += 1
                continue
            whole, truncated = whole[:max_length], truncated + 1
        labels = list(whole) if loss_on_prompt else [IGNORE] * border + whole[border:]
        examples.append({"input_ids": whole, "labels": labels})
    if not examples:
        raise UserError(f"No training example fits into data.max_length={max_length} tokens.")
    return TrainData(examples, {"rows": len(pairs), "truncated": truncated, "dropped": dropped})


def pad(examples: Sequence[Example], pad_id: int, device) -> dict[str, torch.Tensor]:
    """Right-padded input_ids, attention_mask and labels, each (n, longest)."""
    longest = max(len(example["input_ids"]) for example in examples)
    rows = [len(example["input_ids"]) for example in examples]
    batch = {
        "input_ids": [e["input_ids"] + [pad_id] * (longest - n) for e, n in zip(examples, rows, strict=True)],
        "attention_mask": [[1] * n + [0] * (longest - n) for n in rows],
        "labels": [e["labels"] + [IGNORE] * (longest - n) for e, n in zip(examples, rows, strict=True)],
    }
    return {name: torch.tensor(values, device=device) for name, values in batch.items()}
