"""VTAB-1K (Zhai et al., arXiv:1910.04867): image classification with 1,000 training images, top-1 accuracy."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eva_bench.assets import catalogue
from eva_bench.models.bundle import ModelBundle
from eva_bench.settings.schema import DataSettings, TrainSettings
from eva_bench.system.errors import UserError
from eva_bench.task import Batch, Evaluation, Example, Task, TrainData, task_config
from tasks import images
from tasks.samples import answer_rows, constant_answer


@task_config
class VTAB1K(Task):
    """One of the nineteen tasks; its group, number of classes and official sizes stand in tasks/manifest/vtab1k.yaml.

    `format.interpolation` is the filter that images are resized with; there is no augmentation and no crop. Rows of
    layer inputs that EVA sees are all tokens, the class token among them.
    """

    kind = "vision"

    @property
    def outputs(self) -> int:
        """One per class."""
        return catalogue.entry(self.dataset)["classes"]

    def train_data(
        self, rows: Sequence[dict], dataset: str, bundle: ModelBundle, data: DataSettings, train: TrainSettings
    ) -> TrainData:
        """Decoded images with their labels; see `Task.train_data`."""
        self._check_labels(rows, dataset)
        size = bundle.processor.image_size
        pixels = images.decoded([row["image"] for row in rows], size, self.format["interpolation"], data.workers)
        labels = [row["label"] for row in rows]
        examples = [{"pixels": p, "label": label} for p, label in zip(pixels, labels, strict=True)]
        return TrainData(examples, {"rows": len(rows), "classes": len(set(labels)), "image_size": size})

    def collate(self, examples: Sequence[Example], bundle: ModelBundle) -> Batch:
        """Normalised images (n, 3, size, size) and labels (n,)."""
        device = next(bundle.module.parameters()).device
        pixels = torch.stack([example["pixels"] for example in examples]).to(device, non_blocking=True)
        labels = torch.tensor([example["label"] for example in examples], device=device)
        return {"x": bundle.processor.normalise(pixels), "labels": labels}  # `x` is timm's name of a model's input

    def loss(self, module: nn.Module, batch: Batch) -> tuple[Tensor, int]:
        """Cross-entropy summed over images."""
        logits = module(x=batch["x"])  # (n, classes)
        return F.cross_entropy(logits.float(), batch["labels"], reduction="sum"), len(batch["labels"])

    def loss_count(self, example: Example) -> int:
        """One: an image has one label."""
        return 1

    def length(self, example: Example) -> int:
        """One: all images are equally large."""
        return 1

    def evaluate(self, bundle: ModelBundle, evaluation: Evaluation) -> list[dict]:
        """One prediction a row; see `Task.evaluate`."""
        rows = evaluation.rows
        self._check_labels(rows, evaluation.dataset)
        batch_size, workers = evaluation.settings.batch_size, evaluation.data.workers
        size, device = bundle.processor.image_size, next(bundle.module.parameters()).device

        def answer(chunk: Sequence[dict], first: int, answered: Callable) -> list[dict]:
            samples: list[dict] = []
            paths = [row["image"] for row in chunk]
            for pixels in images.batches(paths, size, self.format["interpolation"], batch_size, workers):
                labels = torch.tensor([row["label"] for row in chunk[len(samples) : len(samples) + len(pixels)]])
                with torch.inference_mode():
                    logits = bundle.module(x=bundle.processor.normalise(pixels.to(device))).float().cpu()
                losses = F.cross_entropy(logits, labels, reduction="none").tolist()
                answers = zip(labels.tolist(), logits.argmax(1).tolist(), losses, strict=True)
                samples += [
                    {"row": first + len(samples) + i, "label": label, "prediction": prediction, "loss": loss}
                    for i, (label, prediction, loss) in enumerate(answers)
                ]
                answered(len(samples))
            return samples

        return answer_rows(rows, evaluation.samples_file, evaluation.settings.chunk, answer, evaluation.progress)

    def score(self, samples: Sequence[dict]) -> dict[str, float]:
        """Top-1 accuracy, as `reference_loss` the mean cross-entropy of the right classes, and both of a constant."""
        right = sum(sample["prediction"] == sample["label"] for sample in samples)
        loss = sum(sample["loss"] for sample in samples) / len(samples)
        constant = constant_answer([sample["label"] for sample in samples])
        return {"accuracy": right / len(samples), "reference_loss": loss} | constant

    def _check_labels(self, rows: Sequence[dict], dataset: str) -> None:
        wrong = next((i for i, row in enumerate(rows) if not 0 <= row["label"] < self.outputs), None)
        if wrong is not None:
            raise UserError(
                f"Row {wrong} of '{dataset}' has class {rows[wrong]['label']}, outside 0 to {self.outputs - 1}."
            )
