"""What every solver shares: its settings, reading batches through the model, presenting the result."""

import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from eva_bench.eva import collective
from eva_bench.eva.errors import EvaError
from eva_bench.eva.inputs import InputTap, RowSelector
from eva_bench.eva.moments import Spectrum
from eva_bench.eva.subspace import EvaResult, LayerSubspace
from eva_bench.models.batches import to_device, trim_padding

BF16_WIDTH = 256  # narrower models gain nothing from bf16 passes


@dataclass(frozen=True)
class Settings:
    """Everything `compute_subspaces` was asked for; explained there."""

    solver: str
    center: bool
    tolerance: float
    tau: float
    min_batches: int
    max_batches: int
    columns: int | None
    second_pass: bool
    ranks: Callable | None
    forward: Callable
    row_mask: Callable
    trim: bool
    autocast: str | bool
    seed: int
    progress: Callable | None


def model_device(module: nn.Module) -> torch.device:
    """Where inputs go: the device of the first real parameter."""
    return next((p.device for p in module.parameters() if p.device.type != "meta"), torch.device("cpu"))


class Passes:
    """Forward passes over batches; subclasses decide what to remember and when to stop."""

    def __init__(self, tap: InputTap, batches, counts: dict[str, int], settings: Settings):
        self.tap, self.batches, self.counts, self.settings = tap, batches, counts, settings
        self.device = model_device(tap.module)
        self.autocast = _autocast(tap, settings.autocast, self.device)
        self.started = time.perf_counter()
        self.read = 0  # batches, by this process
        self.gap: float | None = None
        self.converged = False
        self.stopped = "cap"

    def take(self, leader: str, rows: Tensor) -> None:
        """Remember the rows (n, in) that the group of this layer received."""
        raise NotImplementedError

    def result(self) -> EvaResult:
        """Read until it is enough."""
        raise NotImplementedError

    def forward(self, source: Iterator) -> bool:
        """Run the next batch; False if there is none."""
        batch = next(source, None)
        if batch is None:
            return False
        if self.settings.trim:
            batch = trim_padding(batch)
        batch = to_device(batch, self.device)
        masks = self.settings.row_mask(batch)
        select = RowSelector([] if masks is None else [masks] if isinstance(masks, Tensor) else masks)
        self.tap.run(
            lambda: self.settings.forward(self.tap.module, batch),
            lambda leader, x: self.take(leader, select(x)),
            self.autocast,
        )
        self.read += 1
        if self.settings.progress:
            self.settings.progress(self.read, self.gap)
        return True

    def components(self, leader: str) -> int:
        """How many components the group of this layer needs."""
        return max(self.counts[name] for name, group in self.tap.groups.items() if group == leader)

    def subspaces(self, spectra: dict[str, Spectrum]) -> dict[str, LayerSubspace]:
        """Per layer, the components it asked for, with a defined sign."""
        layers = {}
        for name, count in self.counts.items():
            leader = self.tap.groups[name]
            spectrum = spectra[leader]
            rows = spectrum.components[:count]
            signs = rows.gather(1, rows.abs().argmax(1, keepdim=True)).sign()
            layers[name] = LayerSubspace(
                components=(rows * signs).float(),
                eigenvalues=spectrum.eigenvalues[:count].float(),
                total_variance=spectrum.total_variance,
                rows=spectrum.rows,
                group=leader,
            )
        return layers

    def used_ranks(self, layers: dict[str, LayerSubspace]) -> dict[str, int]:
        """How many components of each layer have to be right."""
        return self.settings.ranks(layers) if self.settings.ranks else self.counts

    def check_targets(self) -> None:
        """Refuse to go on without a target."""
        if missing := self.tap.missing():
            raise EvaError(f"layer '{missing[0]}' never ran in the forward pass ({len(missing)} such targets)")

    def present(self, spectra: dict[str, Spectrum], batches: int, solver: str) -> EvaResult:
        """Put everything into the result."""
        for name, count in self.counts.items():
            rows = spectra[self.tap.groups[name]].rows
            if rows < count:
                raise EvaError(f"layer '{name}' received {rows} rows, fewer than its {count} components")
        layers = self.subspaces(spectra)
        return EvaResult(
            layers=layers,
            batches=batches,
            rows=max(layer.rows for layer in layers.values()),
            seconds=time.perf_counter() - self.started,
            peak_bytes=collective.peak_bytes(self.device),
            converged=self.converged,
            solver=solver,
            explained_variance={name: layer.explained_variance for name, layer in layers.items()},
            gap=self.gap,
            stopped=self.stopped,
        )


def _autocast(tap: InputTap, choice: str | bool, device: torch.device) -> Callable:
    """A context for the forward passes."""
    if choice == "auto":
        float32 = all(p.dtype == torch.float32 for p in tap.module.parameters() if p.is_floating_point())
        choice = float32 and max(tap.widths.values()) >= BF16_WIDTH and computes_in_bf16(device)
    return partial(torch.autocast, device.type, dtype=torch.bfloat16) if choice else nullcontext


def computes_in_bf16(device: torch.device) -> bool:
    """Whether products of bf16 matrices are faster than of float32 ones."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and torch.cpu._is_avx512_bf16_supported()
