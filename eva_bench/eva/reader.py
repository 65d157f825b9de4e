"""Reading batches through the model: masks, devices, precision."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from eva_bench.eva.errors import EvaError
from eva_bench.eva.inputs import InputTap, RowSelector, default_forward
from eva_bench.models.batches import default_row_mask, to_device, trim_padding

BF16_WIDTH = 256  # narrower models gain nothing from bf16 passes

Batches = Iterable[Any] | Callable[[], Iterator[Any]]
Forward = Callable[[nn.Module, Any], object]
RowMask = Callable[[Any], Tensor | tuple[Tensor, ...] | None]
SelectRows = Callable[[Any], Callable[[str, Tensor], Tensor]]
Progress = Callable[[int, float | None], None]


class BatchReader:
    """Sends batches through a model and hands on the rows that its target layers receive.

    Args:
        tap: on the target layers of the model.
        batches: as for `compute_subspaces`.
        forward: runs the model on a batch; None: `default_forward`.
        row_mask: says which positions count; None: attention mask and, with `use_label_mask`, labels.
        select_rows: maps a batch to a function of a layer's name and input (..., in) to its rows (n, in), instead.
        use_label_mask: without either: leave out positions whose label is -100.
        autocast: bf16 for the passes, or `auto`.
    """

    def __init__(
        self,
        tap: InputTap,
        batches: Batches,
        *,
        forward: Forward | None = None,
        row_mask: RowMask | None = None,
        select_rows: SelectRows | None = None,
        use_label_mask: bool = False,
        autocast: Literal["auto"] | bool = "auto",
    ):
        self.tap, self.batches = tap, batches
        self.device = model_device(tap.module)
        self._forward = forward or default_forward
        self._trim = row_mask is None and select_rows is None  # a caller's mask has the shape of the batch as it came
        self._select_rows = select_rows
        self._row_mask = row_mask or partial(default_row_mask, use_label_mask=use_label_mask)
        self.bf16 = _reads_in_bf16(tap, autocast, self.device)
        autocasting = partial(torch.autocast, self.device.type, dtype=torch.bfloat16)
        self._autocast: Callable[[], AbstractContextManager[None]] = autocasting if self.bf16 else nullcontext
        self._source = open_batches(batches)
        self.count = 0  # batches read since the start or the last `restart`

    def restart(self) -> None:
        """Begin again with the first batch.

        Raises:
            EvaError: the batches can be read only once.
        """
        self._source = open_batches(self.batches, again=True)
        self.count = 0

    def read(self, consume: Callable[[str, Tensor], None]) -> bool:
        """Run the next batch and call `consume(leader, rows)` for every distinct input, rows (n, in).

        Returns:
            False if there was no batch left.
        """
        batch = next(self._source, None)
        if batch is None:
            return False
        if self._trim:
            batch = trim_padding(batch)
        batch = to_device(batch, self.device)
        select = self._select_rows(batch) if self._select_rows else self._by_mask(batch)
        self.tap.run(
            lambda: self._forward(self.tap.module, batch),
            lambda leader, x: consume(leader, select(leader, x)),
            self._autocast,
        )
        self.count += 1
        return True

    def _by_mask(self, batch: Any) -> RowSelector:
        masks = self._row_mask(batch)
        return RowSelector([] if masks is None else [masks] if isinstance(masks, Tensor) else masks)


def open_batches(batches: Batches, again: bool = False) -> Iterator[Any]:
    """Start reading from the first batch; `again` says that they have been read before.

    Raises:
        EvaError: the batches can be read only once.
    """
    if isinstance(batches, Iterable):
        if again and iter(batches) is batches:
            raise EvaError("a second pass is needed but the batches can be read only once; give a list or a callable")
        return iter(batches)
    return iter(batches())


def model_device(module: nn.Module) -> torch.device:
    """Where inputs go: the device of the first real parameter."""
    return next((p.device for p in module.parameters() if p.device.type != "meta"), torch.device("cpu"))


def computes_in_bf16(device: torch.device) -> bool:
    """Whether products of bf16 matrices are faster than of float32 ones."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu" and bool(torch.cpu._is_avx512_bf16_supported())


def _reads_in_bf16(tap: InputTap, choice: Literal["auto"] | bool, device: torch.device) -> bool:
    """Whether the forward passes run in bf16 autocast."""
    if choice != "auto":
        return choice
    float32 = all(p.dtype == torch.float32 for p in tap.module.parameters() if p.is_floating_point())
    return float32 and max(tap.widths.values()) >= BF16_WIDTH and computes_in_bf16(device)
