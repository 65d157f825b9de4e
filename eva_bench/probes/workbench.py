"""Loss, score and forgetting of any weights, on the rows of a run: for probes that need more than matrices."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from eva_bench.assets.catalogue import pretraining_data
from eva_bench.models.bundle import ModelBundle
from eva_bench.probes import forgetting
from eva_bench.probes.subjects import Subject
from eva_bench.settings.build import build
from eva_bench.settings.spec import RunSpec
from eva_bench.system.errors import UserError
from eva_bench.task import Evaluation, Example, Task, TrainData, mean_loss, split_rows

TRAIN_EXAMPLES = 16  # of a loss that is differentiated
TEST_EXAMPLES = 200  # of a loss that is not


class Workbench:
    """The task of a run beside its model, whose weights may be changed at will.

    Args:
        subject: a run.

    Raises:
        UserError: the subject is no run, so that nobody knows its task.
    """

    def __init__(self, subject: Subject):
        if subject.spec is None:
            raise UserError(
                f"This probe needs a task's data: give run=<id>, because '{subject.name}' comes without one."
            )
        self.spec: RunSpec = subject.spec
        self.bundle: ModelBundle = subject.bundle
        self.checkpoint = subject.checkpoint
        self.task = build(self.spec.task, Task)
        self.train_rows, self.test_rows = split_rows(self.spec)
        self.test = self._test()

    def train(self) -> TrainData:
        """The encoded training examples."""
        rows = self.train_rows
        return self.task.train_data(rows.rows, rows.dataset, self.bundle, self.spec.data, self.spec.train)

    def loss(self) -> float:
        """Loss per prediction on test rows, of the model as it is."""
        return mean_loss(self.task, self.bundle, self.test, self.spec.eval.batch_size)

    def score(self) -> float:
        """The task's primary metric on all test rows, of the model as it is."""
        rows = self.test_rows
        with tempfile.TemporaryDirectory() as folder:
            file, spec = Path(folder) / "samples.jsonl", self.spec
            asked = Evaluation(rows.rows, rows.dataset, spec.eval, spec.data, file, lambda *_: None)
            samples = self.task.evaluate(self.bundle, asked)
        return self.task.score(samples)[self.task.primary]

    def forgetting(self) -> dict[str, float]:
        """Loss and score on held-out pretraining data, of the model as it is."""
        dataset = pretraining_data(self.spec.model.name)
        if dataset is None:
            return {}
        return forgetting.measure(self.bundle, dataset, self.checkpoint, self.spec.data.root)

    def differentiable(self, examples: Sequence[Example]) -> Tensor:
        """Loss per prediction of the model as it is, with gradients."""
        with torch.enable_grad():
            total, count = self.task.loss(self.bundle.module, self.task.collate(examples, self.bundle))
        return total / count

    def _test(self) -> list[Example]:
        rows, dataset = self.test_rows.rows[:TEST_EXAMPLES], self.test_rows.dataset
        references = self.task.reference_examples(rows, dataset, self.bundle, self.spec.data)
        return references or self.task.train_data(rows, dataset, self.bundle, self.spec.data, self.spec.train).examples
