"""Getting at the inputs of layers: batches, masks, hooks, and a forward pass that stops when all is seen."""

import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from eva_bench.eva.errors import EvaError


class _AllSeen(Exception):
    """Raised inside the forward pass once the last target has its input."""


def input_width(name: str, layer: nn.Module) -> int:
    """Number of input features of a linear layer (also of PEFT's wrapper around one); EvaError if it is none."""
    layer = getattr(layer, "base_layer", layer)
    weight = getattr(layer, "weight", None)
    if not isinstance(weight, Tensor) or not weight.is_floating_point():
        kind = getattr(weight, "dtype", "no weight")
        raise EvaError(f"layer '{name}' has no floating-point weight ({kind}); initialise before quantising")
    if not isinstance(layer, (nn.Linear, Conv1D)):
        raise EvaError(f"layer '{name}' is a {type(layer).__name__}; only Linear and Conv1D layers are supported")
    return weight.shape[0] if isinstance(layer, Conv1D) else weight.shape[1]


def default_forward(module: nn.Module, batch) -> None:
    """Run the model on a dict (without labels), on the first element of a tuple, or on a tensor."""
    if isinstance(batch, Mapping):
        module(**{key: value for key, value in batch.items() if key != "labels"})
    else:
        module(batch[0] if isinstance(batch, (tuple, list)) else batch)


class RowSelector:
    """Turns layer inputs (..., in) into the rows that count, (n, in).

    Args:
        masks: bool tensors over positions, each for inputs with the same leading shape, or flattened to that many
            rows; inputs that fit none (a pooler's, an image model's) count in full.
    """

    def __init__(self, masks: Sequence[Tensor]):
        self.masks = [(mask.shape, None if mask.all() else mask.flatten().nonzero()[:, 0]) for mask in masks]

    def __call__(self, x: Tensor) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])
        for shape, kept in self.masks:
            if x.shape[:-1] == shape or (x.ndim == 2 and len(x) == shape.numel()):
                return rows if kept is None else rows.index_select(0, kept)
        return rows


class InputTap:
    """Hands the inputs of target layers to a function, each distinct tensor once.

    The first forward pass finds out which layers receive the very same tensor (the object, watched by weak reference:
    addresses are reused) and which call is the last; later passes hook one layer per group and stop there.

    Args:
        module: the model; left as it was when the `with` block ends, whatever happens in it.
        targets: names of its layers.
        stop_early: leave the forward pass after the last target.
    """

    def __init__(self, module: nn.Module, targets: Sequence[str], stop_early: bool = True):
        self.module, self.stop_early = module, stop_early
        self.layers = {name: module.get_submodule(name) for name in targets}
        self.widths = {name: input_width(name, layer) for name, layer in self.layers.items()}
        self.groups: dict[str, str] = {}  # layer -> leader of its group, filled as layers run
        self._calls: list[str] = []  # layers in the order of this pass
        self._order: list[str] | None = None  # the same for the first complete pass
        self._recent: list[tuple[weakref.ref, str]] = []
        self._handles: dict[str, torch.utils.hooks.RemovableHandle] = {}

    def __enter__(self) -> "InputTap":
        self._training = [part for part in self.module.modules() if part.training]
        self._config = getattr(self.module, "config", None)
        self._use_cache = getattr(self._config, "use_cache", None)
        if self._use_cache:
            self._config.use_cache = False  # keys and values of generation would only cost memory
        self.module.eval()
        for name, layer in self.layers.items():
            self._handles[name] = layer.register_forward_pre_hook(self._hook(name), with_kwargs=True)
        return self

    def __exit__(self, *_) -> None:
        for handle in self._handles.values():
            handle.remove()
        for part in self._training:
            part.training = True
        if self._use_cache:
            self._config.use_cache = self._use_cache

    def missing(self) -> list[str]:
        """Targets that no forward pass has reached."""
        return [name for name in self.layers if name not in self.groups]

    @torch.no_grad()
    def run(self, forward: Callable[[], None], consume: Callable[[str, Tensor], None], autocast=nullcontext) -> None:
        """One forward pass; `consume(leader, x)` is called with every distinct input, (..., in)."""
        self._consume, self._calls, self._recent = consume, [], []
        try:
            with autocast():
                forward()
        except _AllSeen:
            pass
        if not self.missing() and self._order is None:
            self._order = self._calls
            for name in self.layers:
                if self.groups[name] != name and name != self._order[-1]:
                    self._handles.pop(name).remove()
            self._last_call = self._order.count(self._order[-1])

    def _hook(self, name: str):
        def see(_, args, kwargs):
            x = args[0] if args else next(iter(kwargs.values()))
            self._calls.append(name)
            leader = self.groups.get(name) or self._find_group(name, x)
            if leader == name:
                self._recent.append((weakref.ref(x), name))
                with torch.autocast(x.device.type, enabled=False):
                    self._consume(name, x)
            is_last = self._order and name == self._order[-1] and self._calls.count(name) == self._last_call
            if self.stop_early and is_last:
                raise _AllSeen

        return see

    def _find_group(self, name: str, x: Tensor) -> str:
        same = (leader for reference, leader in self._recent if reference() is x)
        self.groups[name] = leader = next(same, name)
        return leader
