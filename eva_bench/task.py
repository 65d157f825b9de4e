"""What a task is: rows made into examples, a loss, an evaluation that keeps every sample, a pure score."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, TypeVar, dataclass_transform

import torch
from torch import Tensor, nn

from eva_bench.assets.catalogue import entry, load_rows
from eva_bench.methods.base import method_config
from eva_bench.models.bundle import ModelBundle
from eva_bench.settings.schema import CalibrationSettings, DataSettings, EvalSettings, TrainSettings
from eva_bench.settings.spec import RunSpec
from eva_bench.system.errors import UserError
from eva_bench.system.files import sha256_of

Example = dict[str, Any]
Batch = dict[str, Tensor]
T = TypeVar("T")


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(field,))
def task_config(cls: type[T]) -> type[T]:
    """Make a class a frozen dataclass whose values are checked, as for methods (`method_config`)."""
    return method_config(cls)


@dataclass
class Rows:
    """Rows and the manifest's name of the data set they are from."""

    rows: list[dict[str, Any]]
    dataset: str


@dataclass
class TrainData:
    """Encoded training examples and facts about them for the record (rows, truncated, dropped)."""

    examples: list[Example]
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Evaluation:
    """What a task is asked to answer, and how.

    Attributes:
        rows: to be answered, in order.
        dataset: the manifest's name of the data set they are from.
        settings: batch size, chunk, length of answers.
        data: how rows are read.
        samples_file: gets one JSON line per row; rows that it has already are not answered again.
        progress: called with (done, total).
    """

    rows: Sequence[dict]
    dataset: str
    settings: EvalSettings
    data: DataSettings
    samples_file: Path
    progress: Callable[[int, int], None]


@task_config
class Task(ABC):
    """Base class; values live in `conf/task/<name>.yaml`.

    Attributes:
        kind: which ModelBundle it needs.
        primary: the metric shown first.
        dataset, pocket: manifest names of the real rows and of the generated stand-in, if there is one.
        format: how a row becomes text; part of the initialisation's fingerprint.
        outputs: of the trained head that the task needs; None where the model has what it needs.
    """

    name: str
    family: str
    primary: str
    dataset: str
    pocket: str | None = None
    format: dict[str, Any]
    kind: ClassVar[str] = "language"
    outputs: ClassVar[int | None] = None

    @abstractmethod
    def train_data(
        self, rows: Sequence[dict], dataset: str, bundle: ModelBundle, data: DataSettings, train: TrainSettings
    ) -> TrainData:
        """Encode training rows of a data set. Raises UserError for rows that cannot be used, naming them."""

    def reference_examples(
        self, rows: Sequence[dict], dataset: str, bundle: ModelBundle, data: DataSettings
    ) -> list[Example]:
        """Evaluation rows with their right answers, for the loss before and after training; may be empty."""
        return []

    def length(self, example: Example) -> int:
        """Examples of one length make batches with little padding."""
        return len(example["input_ids"])

    @abstractmethod
    def collate(self, examples: Sequence[Example], bundle: ModelBundle) -> Batch:
        """A padded batch of tensors on the model's device."""

    @abstractmethod
    def loss(self, module: nn.Module, batch: Batch) -> tuple[Tensor, int]:
        """Loss summed over what is predicted, and the count it is divided by later."""

    @abstractmethod
    def loss_count(self, example: Example) -> int:
        """How many predictions of one example enter the loss."""

    @abstractmethod
    def evaluate(self, bundle: ModelBundle, evaluation: Evaluation) -> list[dict]:
        """Answer every row, one JSON line per row in `samples_file`; continues after the last complete line."""

    @abstractmethod
    def score(self, samples: Sequence[dict]) -> dict[str, float]:
        """Metrics (fractions 0-1) from samples alone."""


def split_rows(spec: RunSpec) -> tuple[Rows, Rows]:
    """Training and evaluation rows; for stage=tune the latter are validation rows that training never sees.

    A generator draws evaluation rows anew for every seed, the same for every method; training rows stay the same.

    Raises:
        UserError: a data set is not on this machine, has too few rows, or there is nothing to validate on.
    """
    root, data, limit = spec.data.root, spec.data, spec.eval.limit
    train_name, eval_name = spec.identity.train_data.name, spec.identity.eval_data.name
    train_info, eval_info = entry(train_name), entry(eval_name)
    if spec.stage == "final":
        rows, _ = drawn_rows(load_rows(train_name, train_info.get("final_train", "train"), root), train_name, data)
        held_out = load_rows(eval_name, eval_info.get("test", "test"), root, spec.seed)
        return Rows(rows, train_name), Rows(held_out[:limit], eval_name)
    rows, others = drawn_rows(load_rows(train_name, "train", root), train_name, data)
    if "generator" in eval_info or "validation" in eval_info:
        held_out = load_rows(eval_name, eval_info.get("validation", "validation"), root, spec.seed)
    elif data.rows is not None and 0 < data.holdout <= len(others):
        held_out, eval_name = others[: data.holdout], train_name
    elif data.rows is None and 0 < data.holdout < len(rows):
        rows, held_out, eval_name = rows[: -data.holdout], rows[-data.holdout :], train_name
    else:
        most = len(rows) - 1 if data.rows is None else len(others)
        raise UserError(f"stage=tune needs data.holdout between 1 and {most}: rows kept aside from training.")
    return Rows(rows, train_name), Rows(held_out[:limit], eval_name)


def drawn_rows(
    rows: list[dict[str, Any]], dataset: str, data: DataSettings
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The `data.rows` training rows that the draw of `data.rows_seed` takes, and all others, in the draw's order.

    The order is that of checksums of seed and position: the same on every platform, and more rows contain fewer.

    Raises:
        UserError: fewer rows than asked for.
    """
    if data.rows is None:
        return rows, []
    if data.rows > len(rows):
        raise UserError(
            f"data.rows={data.rows}: '{dataset}' has {len(rows)} training rows here; data.rows=null takes all."
        )
    order = sorted(range(len(rows)), key=lambda i: sha256_of(f"{data.rows_seed}/{i}"))
    return [rows[i] for i in order[: data.rows]], [rows[i] for i in order[data.rows :]]


class Calibration:
    """Re-creatable batches of training inputs, in a fixed random order, for data-driven initialisation.

    Iterating again yields the same batches again; each is a dict of tensors (input_ids, attention_mask, labels).

    Args:
        settings: examples of a batch, and how many are read at most.
        share: number of this process and of all that share the batches; each takes its own.
        even: all processes take equally many, and the few batches that are left are not read.
    """

    def __init__(
        self,
        task: Task,
        bundle: ModelBundle,
        examples: list[Example],
        settings: CalibrationSettings,
        seed: int,
        share: tuple[int, int] = (0, 1),
        even: bool = False,
    ):
        self.first, self.step, self.even = *share, even
        self.task, self.bundle, self.examples, self.batch_size = task, bundle, examples, settings.batch_size
        generator = torch.Generator().manual_seed(seed)
        self.order = torch.randperm(len(examples), generator=generator)[: settings.rows].tolist()

    def __len__(self) -> int:
        return len(self._starts())

    def _starts(self) -> range:
        starts = range(0, len(self.order), self.batch_size)
        most = len(starts) // self.step * self.step if self.even else len(starts)
        return starts[self.first : most : self.step]

    def __iter__(self) -> Iterator[Batch]:
        for start in self._starts():
            indices = self.order[start : start + self.batch_size]
            yield self.task.collate([self.examples[i] for i in indices], self.bundle)

    def loss(self, module: nn.Module, batch: Batch) -> Tensor:
        """The mean loss per prediction of one batch, a scalar with gradients where the module has them."""
        loss_sum, count = self.task.loss(module, batch)
        return loss_sum / max(count, 1)


def loss_sum(
    task: Task,
    bundle: ModelBundle,
    examples: Iterable[Example],
    batch_size: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[float, int]:
    """Loss summed over the predictions of examples, without gradients, and the number of predictions."""
    examples = sorted(examples, key=task.length)  # little padding
    total, count = 0.0, 0
    with torch.no_grad():
        for start in range(0, len(examples), batch_size):
            batch = task.collate(examples[start : start + batch_size], bundle)
            part, n = task.loss(bundle.module, batch)
            total, count = total + float(part), count + n
            progress(min(start + batch_size, len(examples)), len(examples))
    return total, count


def mean_loss(task: Task, bundle: ModelBundle, examples: Iterable[Example], batch_size: int) -> float:
    """Loss per prediction over examples, without gradients."""
    total, count = loss_sum(task, bundle, examples, batch_size)
    return total / max(count, 1)
