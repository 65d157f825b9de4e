"""Getting at the inputs of layers: hooks, masks, and a forward pass that ends when all is seen."""

import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.utils.hooks import RemovableHandle
from transformers.pytorch_utils import Conv1D

from eva_bench.eva.errors import EvaError


class _AllSeen(Exception):
    """Raised inside the forward pass once the last target has its input."""


def input_width(name: str, layer: nn.Module) -> int:
    """Number of input features of a linear layer, also of a quantised one and of PEFT's wrapper around one.

    Raises:
        EvaError: the layer is of another kind.
    """
    layer = getattr(layer, "base_layer", layer)
    if isinstance(layer, Conv1D):
        return int(layer.weight.shape[0])
    width = getattr(layer, "in_features", None)
    if not isinstance(width, int) or not isinstance(getattr(layer, "out_features", None), int):
        raise EvaError(
            f"layer '{name}' is a {type(layer).__name__}; EVA needs layers that multiply their input by a matrix "
            "(Linear, also quantised, or Conv1D): leave it out of the targets"
        )
    return width


def default_forward(module: nn.Module, batch: Any) -> None:
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

    def __call__(self, name: str, x: Tensor) -> Tensor:
        """The rows of x that count; `name` of the layer makes no difference."""
        rows = x.reshape(-1, x.shape[-1])
        for shape, kept in self.masks:
            if x.shape[:-1] == shape or (x.ndim == 2 and len(x) == shape.numel()):
                return rows if kept is None else rows.index_select(0, kept.to(rows.device))
        return rows


class InputTap:
    """Hands the inputs of target layers to a function, each distinct tensor once.

    The first forward pass finds out which layers receive the very same tensor (the object, watched by weak reference:
    addresses are reused) and which call is the last; later passes hook one layer per group and stop there. Where no
    pass reaches every target (mixtures of experts), or where weights are moved in and out during the pass, passes run
    to their end.

    Args:
        module: the model; left as it was when the `with` block ends, whatever happens in it.
        targets: names of its layers.
        stop_early: leave the forward pass after the last target.
        share: layers that receive the same tensor form one group.
    """

    def __init__(self, module: nn.Module, targets: Sequence[str], stop_early: bool = True, share: bool = True):
        self.module, self.share = module, share
        moving = any(hasattr(part, "_hf_hook") or isinstance(part, FSDPModule) for part in module.modules())
        self.stop_early = stop_early and not moving
        self.layers = {name: _submodule(module, name) for name in targets}
        self.widths = {name: input_width(name, layer) for name, layer in self.layers.items()}
        self.groups: dict[str, str] = {}  # layer -> leader of its group, filled as layers run
        self._calls: list[str] = []  # layers in the order of this pass
        self._order: list[str] = []  # the same for the first pass that reached every target
        self._last: tuple[str, int] | None = None  # the call after which nothing more is to be seen
        self._recent: list[tuple[weakref.ref[Tensor], str]] = []
        self._handles: dict[str, RemovableHandle] = {}

    def __enter__(self) -> "InputTap":
        self._training = [part for part in self.module.modules() if part.training]
        config: Any = getattr(self.module, "config", None)
        self._caching = config if getattr(config, "use_cache", False) else None
        if self._caching is not None:
            self._caching.use_cache = False  # keys and values of generation would only cost memory
        self.module.eval()
        for name in self.layers:
            self._register(name)
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles.values():
            handle.remove()
        for part in self._training:
            part.training = True
        if self._caching is not None:
            self._caching.use_cache = True

    def missing(self) -> list[str]:
        """Targets that no forward pass has reached."""
        return [name for name in self.layers if name not in self.groups]

    @torch.no_grad()
    def run(
        self,
        forward: Callable[[], object],
        consume: Callable[[str, Tensor], None],
        autocast: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        """One forward pass; `consume(leader, x)` is called with every distinct input, (..., in)."""
        self._consume, self._calls, self._recent = consume, [], []
        try:
            with autocast():
                forward()
        except _AllSeen:
            pass
        if not self._order and set(self._calls) == set(self.layers):
            self._order = self._calls
            self.listen(set(self.groups.values()))

    def listen(self, leaders: set[str]) -> None:
        """From the next pass on, see the inputs of these groups only, and leave the pass after the last of them."""
        if not self._order:
            return
        for name in set(self._handles) - leaders:
            self._handles.pop(name).remove()
        for name in leaders - set(self._handles):
            self._register(name)
        last = next((name for name in reversed(self._order) if name in leaders), None)
        self._last = None if last is None else (last, self._order.count(last))

    def _register(self, name: str) -> None:
        self._handles[name] = self.layers[name].register_forward_pre_hook(self._hook(name), with_kwargs=True)

    def _hook(self, name: str) -> Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], None]:
        def see(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            x = args[0] if args else next(iter(kwargs.values()))
            self._calls.append(name)
            leader = self.groups.get(name) or self._find_group(name, x)
            if leader == name:
                self._recent.append((weakref.ref(x), name))
                with torch.autocast(x.device.type, enabled=False):
                    self._consume(name, x)
            if self.stop_early and self._last == (name, self._calls.count(name)):
                raise _AllSeen

        return see

    def _find_group(self, name: str, x: Tensor) -> str:
        same = (leader for reference, leader in self._recent if reference() is x and self.share)
        self.groups[name] = leader = next(same, name)
        return leader


def _submodule(module: nn.Module, name: str) -> nn.Module:
    try:
        return module.get_submodule(name)
    except AttributeError:
        raise EvaError(f"the model has no layer named '{name}'") from None
