"""GLUE (Wang et al., arXiv:1804.07461): one or two texts, a class or a degree; eight sets that differ in YAML only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eva_bench.models.bundle import ModelBundle
from eva_bench.models.classifier import context_length
from eva_bench.settings.schema import DataSettings, TrainSettings
from eva_bench.system.errors import UserError
from eva_bench.task import Batch, Evaluation, Example, Task, TrainData, task_config
from tasks.glue_metrics import glue_scores
from tasks.rows import refuse_missing, refuse_other_than_text
from tasks.samples import answer_rows


@task_config
class GLUE(Task):
    """Classification of texts, or regression where there is one output.

    `format.columns` names the one or two columns with text, `classes` how many labels there are (0, 1, ...), `largest`
    the upper end of a regression's labels, which start at 0.
    """

    classes: int
    largest: float | None
    metrics: tuple[str, ...]
    kind = "classifier"

    @property
    def outputs(self) -> int:
        """One per class, or one for a degree."""
        return self.classes

    def train_data(
        self, rows: Sequence[dict], dataset: str, bundle: ModelBundle, data: DataSettings, train: TrainSettings
    ) -> TrainData:
        """Texts with their labels; see `Task.train_data`."""
        if data.too_long != "truncate":
            raise UserError(
                f"data.too_long={data.too_long}: longer texts are truncated in GLUE, because every row counts."
            )
        examples = self.encode(rows, dataset, bundle, data.max_length)
        truncated = sum(example["truncated"] for example in examples)
        facts = {"rows": len(rows), "truncated": truncated, "dropped": 0}
        columns = self.format["columns"]
        empty = sum(not row[column].strip() for row in rows for column in columns)
        return TrainData(examples, facts | ({"empty_texts": empty} if empty else {}))

    def encode(self, rows: Sequence[dict], dataset: str, bundle: ModelBundle, max_length: int | None) -> list[Example]:
        """Token ids, label and part (of MNLI) of every row, and whether it was truncated.

        Where texts are too long, tokens are taken off the longer one's end, one by one, until both fit ("longest
        first").

        Raises:
            UserError: a missing column, a missing text or a label that is none, with the rows.
        """
        self._check(rows, dataset)
        tokenizer = bundle.processor
        limit = min(context_length(bundle), max_length or context_length(bundle))
        columns = [[row[column] for row in rows] for column in self.format["columns"]]
        whole = tokenizer(*columns, verbose=False)["input_ids"]
        cut = tokenizer(*columns, truncation="longest_first", max_length=limit)
        names = [name for name in tokenizer.model_input_names if name in cut and name != "attention_mask"]
        return [
            {name: cut[name][i] for name in names}
            | {"label": row["label"], "part": row.get("part"), "truncated": len(whole[i]) > limit}
            for i, row in enumerate(rows)
        ]

    def _check(self, rows: Sequence[dict], dataset: str) -> None:
        refuse_missing(rows, (*self.format["columns"], "label"), dataset)
        refuse_other_than_text(rows, self.format["columns"], dataset)
        empty = [i for i, row in enumerate(rows) if not all(_is_text(row[column]) for column in self.format["columns"])]
        if empty:
            raise UserError(f"{len(empty)} of {len(rows)} rows of '{dataset}' have no text: rows {_first(empty)}.")
        if wrong := [i for i, row in enumerate(rows) if not self._is_label(row["label"])]:
            allowed = f"0 to {self.largest:g}" if self.classes == 1 else f"0 to {self.classes - 1}, whole numbers"
            found = rows[wrong[0]]["label"]
            raise UserError(
                f"{len(wrong)} of {len(rows)} rows of '{dataset}' have a label outside {allowed} "
                f"(the first is {found!r}): rows {_first(wrong)}."
            )

    def _is_label(self, value) -> bool:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return False
        if self.classes == 1:
            return 0 <= value <= self.largest
        return value in range(self.classes)

    def collate(self, examples: Sequence[Example], bundle: ModelBundle) -> Batch:
        """Padded token ids, attention mask and labels; see `Task.collate`."""
        longest = max(len(example["input_ids"]) for example in examples)
        device, pad = next(bundle.module.parameters()).device, {"input_ids": bundle.processor.pad_token_id}
        names = [name for name in examples[0] if name in bundle.processor.model_input_names]
        batch = {name: [e[name] + [pad.get(name, 0)] * (longest - len(e[name])) for e in examples] for name in names}
        batch["attention_mask"] = [[1] * len(e["input_ids"]) + [0] * (longest - len(e["input_ids"])) for e in examples]
        batch["labels"] = [e["label"] for e in examples]
        return {name: torch.tensor(values, device=device) for name, values in batch.items()}

    def loss(self, module: nn.Module, batch: Batch) -> tuple[Tensor, int]:
        """Cross-entropy, or squared error where there is one output, summed over texts."""
        labels = batch["labels"]
        logits = module(
            **{name: value for name, value in batch.items() if name != "labels"}
        ).logits.float()  # (n, classes)
        if self.classes == 1:
            return F.mse_loss(logits[:, 0], labels.float(), reduction="sum"), len(labels)
        return F.cross_entropy(logits, labels.long(), reduction="sum"), len(labels)

    def loss_count(self, example: Example) -> int:
        """One: a text has one label."""
        return 1

    def evaluate(self, bundle: ModelBundle, evaluation: Evaluation) -> list[dict]:
        """One prediction a row; see `Task.evaluate`."""
        examples = self.encode(evaluation.rows, evaluation.dataset, bundle, evaluation.data.max_length)
        answer = partial(self._answer, bundle, evaluation.settings.batch_size)
        return answer_rows(examples, evaluation.samples_file, evaluation.settings.chunk, answer, evaluation.progress)

    @torch.no_grad()
    def _answer(
        self, bundle: ModelBundle, batch_size: int, examples: Sequence[Example], first: int, answered: Callable
    ) -> list[dict]:
        """One sample per example: row, part (of MNLI), label, prediction, outputs, whether it was truncated."""
        samples: dict[int, dict] = {}
        by_length = sorted(range(len(examples)), key=lambda i: self.length(examples[i]))  # little padding
        for start in range(0, len(by_length), batch_size):
            indices = by_length[start : start + batch_size]
            batch = self.collate([examples[i] for i in indices], bundle)
            batch.pop("labels")
            outputs = bundle.module(**batch).logits.float()
            if not torch.isfinite(outputs).all():
                raise FloatingPointError(f"the model's outputs are not finite (rows {first + indices[0]} and others)")
            for i, values in zip(indices, outputs.tolist(), strict=True):
                predicted = values[0] if self.classes == 1 else values.index(max(values))
                known = {name: examples[i][name] for name in ("part", "label", "truncated")}
                samples[i] = {"row": first + i} | known | {"prediction": predicted, "outputs": values}
            answered(len(samples))
        return [samples[i] for i in range(len(examples))]

    def score(self, samples: Sequence[dict]) -> dict[str, float]:
        """The metrics of the set; see `tasks.glue_metrics.glue_scores`."""
        return glue_scores(samples, self.metrics, regression=self.classes == 1)


def _is_text(value) -> bool:
    return isinstance(value, str)  # also an empty one: QQP's training rows have two


def _first(rows: list[int]) -> str:
    return ", ".join(map(str, rows[:5])) + (", ..." if len(rows) > 5 else "")
