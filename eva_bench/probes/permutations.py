"""Permutations of hidden units that leave a transformer's function as it is, and the search for those that align two.

Three kinds of units: those of the residual stream, tied over all layers; those of each MLP; and the heads of each
attention layer with the units inside them. Source: weight matching, Ainsworth et al., arXiv:2209.04836; its reading by
singular vectors, Ito et al., arXiv:2402.04051.

A state is a dictionary of parameters by their names in the model. A group names units that are permuted together.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from eva_bench.system.errors import UserError

State = dict[str, Tensor]
Permutations = dict[str, Tensor]  # group -> for every place of the first model, the unit of the second that goes there
Axes = dict[str, tuple[str | None, ...]]  # parameter -> the group of each of its axes

RESIDUAL = "residual"
# For every architecture: patterns of parameter names and the group of each axis; {} is the number of the layer.
# The units inside query and key heads (qk) keep their places where rotary positions depend on them.
_BLOCKS = {
    "llama": (
        (r"model\.embed_tokens\.weight|lm_head\.weight", (None, RESIDUAL)),
        (r"model\.norm\.weight|model\.layers\.(\d+)\.\w+_layernorm\.weight", (RESIDUAL,)),
        (r"model\.layers\.(\d+)\.self_attn\.[qk]_proj\.weight", ("qk{}", RESIDUAL)),
        (r"model\.layers\.(\d+)\.self_attn\.v_proj\.weight", ("vo{}", RESIDUAL)),
        (r"model\.layers\.(\d+)\.self_attn\.o_proj\.weight", (RESIDUAL, "vo{}")),
        (r"model\.layers\.(\d+)\.mlp\.(?:gate|up)_proj\.weight", ("mlp{}", RESIDUAL)),
        (r"model\.layers\.(\d+)\.mlp\.down_proj\.weight", (RESIDUAL, "mlp{}")),
    ),
    "roberta": (
        (r"roberta\.embeddings\.\w+_embeddings\.weight", (None, RESIDUAL)),
        (r"roberta\.embeddings\.LayerNorm\.(?:weight|bias)", (RESIDUAL,)),
        (r"roberta\.encoder\.layer\.(\d+)\.(?:attention\.)?output\.LayerNorm\.(?:weight|bias)", (RESIDUAL,)),
        (r"roberta\.encoder\.layer\.(\d+)\.attention\.self\.(?:query|key)\.weight", ("qk{}", RESIDUAL)),
        (r"roberta\.encoder\.layer\.(\d+)\.attention\.self\.(?:query|key)\.bias", ("qk{}",)),
        (r"roberta\.encoder\.layer\.(\d+)\.attention\.self\.value\.weight", ("vo{}", RESIDUAL)),
        (r"roberta\.encoder\.layer\.(\d+)\.attention\.self\.value\.bias", ("vo{}",)),
        (r"roberta\.encoder\.layer\.(\d+)\.attention\.output\.dense\.weight", (RESIDUAL, "vo{}")),
        (r"roberta\.encoder\.layer\.(\d+)\.intermediate\.dense\.weight", ("mlp{}", RESIDUAL)),
        (r"roberta\.encoder\.layer\.(\d+)\.intermediate\.dense\.bias", ("mlp{}",)),
        (r"roberta\.encoder\.layer\.(\d+)\.output\.dense\.weight", (RESIDUAL, "mlp{}")),
        (r"roberta\.encoder\.layer\.(\d+)\.(?:attention\.)?output\.dense\.bias", (RESIDUAL,)),
        (r"classifier\.dense\.weight", (None, RESIDUAL)),
        (r"classifier\.dense\.bias|classifier\.out_proj\.bias", (None,)),
        (r"classifier\.out_proj\.weight", (None, None)),
    ),
    "vision": (
        (r"cls_token|pos_embed", (None, None, RESIDUAL)),
        (r"patch_embed\.proj\.weight", (RESIDUAL, None, None, None)),
        (r"patch_embed\.proj\.bias|norm\.(?:weight|bias)|blocks\.(\d+)\.norm\d\.(?:weight|bias)", (RESIDUAL,)),
        (r"blocks\.(\d+)\.attn\.qkv\.[qk]\.weight", ("qk{}", RESIDUAL)),
        (r"blocks\.(\d+)\.attn\.qkv\.[qk]\.bias", ("qk{}",)),
        (r"blocks\.(\d+)\.attn\.qkv\.v\.weight", ("vo{}", RESIDUAL)),
        (r"blocks\.(\d+)\.attn\.qkv\.v\.bias", ("vo{}",)),
        (r"blocks\.(\d+)\.attn\.proj\.weight", (RESIDUAL, "vo{}")),
        (r"blocks\.(\d+)\.mlp\.fc1\.weight", ("mlp{}", RESIDUAL)),
        (r"blocks\.(\d+)\.mlp\.fc1\.bias", ("mlp{}",)),
        (r"blocks\.(\d+)\.mlp\.fc2\.weight", (RESIDUAL, "mlp{}")),
        (r"blocks\.(\d+)\.(?:attn\.proj|mlp\.fc2)\.bias", (RESIDUAL,)),
        (r"(?:head|readout_\w+)\.weight", (None, RESIDUAL)),
        (r"(?:head|readout_\w+)\.bias", (None,)),
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Wiring:
    """Which units a model has and where they occur.

    Attributes:
        axes: the group of every axis of every parameter.
        heads: of an attention layer.
        rotary: whether units inside query and key heads keep their places.
    """

    axes: Axes
    heads: int
    rotary: bool

    @property
    def groups(self) -> tuple[str, ...]:
        """What is permuted at once: the residual stream, MLPs, and attention layers by the name of their vo group."""
        found = dict.fromkeys(group for axes in self.axes.values() for group in axes if group)
        return tuple(group for group in found if not group.startswith("qk"))


def wiring(module: nn.Module) -> Wiring:
    """The units of a Llama, a RoBERTa or a vision transformer of timm (its fused layers split).

    Raises:
        UserError: another architecture, or keys and values shared between heads.
    """
    config = getattr(module, "config", None)
    kind = "vision" if hasattr(module, "patch_embed") else getattr(config, "model_type", type(module).__name__)
    if kind not in _BLOCKS:
        raise UserError(f"The hidden units of a model of type '{kind}' are not known to weight matching.")
    if kind == "llama" and config.num_key_value_heads != config.num_attention_heads:
        raise UserError("Weight matching does not know heads that share their keys and values.")
    heads = module.blocks[0].attn.num_heads if kind == "vision" else config.num_attention_heads
    return Wiring({name: _axes(kind, name) for name in dict(module.named_parameters())}, heads, kind == "llama")


def _axes(kind: str, name: str) -> tuple[str | None, ...]:
    for pattern, groups in _BLOCKS[kind]:
        if match := re.fullmatch(pattern, name):
            layer = next((number for number in match.groups() if number), "")
            return tuple(group and group.format(layer) for group in groups)
    raise UserError(f"The parameter '{name}' is not known to weight matching.")


def permute(state: Mapping[str, Tensor], permutations: Permutations, axes: Axes) -> State:
    """The state with its units in other places: the same function."""
    permuted = {}
    for name, value in state.items():
        for axis, group in enumerate(axes[name]):
            if group in permutations:
                value = value.index_select(axis, permutations[group])
        permuted[name] = value
    return permuted


def match(first: State, second: State, units: Wiring, seed: int, sweeps: int = 100) -> Permutations:
    """Permutations of the second model that bring its weights nearest to the first's.

    Coordinate descent: for one group after the other, in random order, the assignment with the largest inner product
    of the weights, given all other groups; until a whole round changes nothing. A local optimum.

    Args:
        first, second: parameters of two models of one architecture.
        seed: of the order.
        sweeps: most rounds.
    """
    generator = torch.Generator().manual_seed(seed)
    found: Permutations = {}
    for _ in range(sweeps):
        changed = False
        for index in torch.randperm(len(units.groups), generator=generator).tolist():
            for group, order in _best(first, second, units, units.groups[index], found).items():
                before = found.get(group, torch.arange(len(order)))
                changed |= not torch.equal(before, order)
                found[group] = order
        if not changed:
            break
    return found


def _best(first: State, second: State, units: Wiring, group: str, found: Permutations) -> Permutations:
    """The best permutations of one group (of vo and qk together), all others as found."""
    if not group.startswith("vo"):
        gain = _similarity(first, second, units.axes, group, found)
        return {group: _assign(gain)[0]}
    layer = group.removeprefix("vo")
    values = _blocks(_similarity(first, second, units.axes, group, found), units.heads)
    keys = _blocks(_similarity(first, second, units.axes, f"qk{layer}", found), units.heads)
    size = values.shape[-1]

    def inner(a: int, b: int) -> tuple[Tensor, Tensor, float]:
        """Units of head b in the places of head a: of vo, of qk, and what that gains."""
        vo, gain = _assign(values[a, b])
        if units.rotary:
            return vo, torch.arange(size), gain + float(keys[a, b].trace())
        qk, more = _assign(keys[a, b])
        return vo, qk, gain + more

    pairs = [[inner(a, b) for b in range(units.heads)] for a in range(units.heads)]
    gain = torch.tensor([[pair[2] for pair in row] for row in pairs], dtype=torch.float64)
    chosen = [(b, pairs[a][b]) for a, b in enumerate(_assign(gain)[0].tolist())]
    return {
        group: torch.cat([size * b + pair[0] for b, pair in chosen]),
        f"qk{layer}": torch.cat([size * b + pair[1] for b, pair in chosen]),
    }


def _similarity(first: State, second: State, axes: Axes, group: str, found: Permutations) -> Tensor:
    """Inner products of the weights of every unit of the first with every unit of the second, (n, n) float64."""
    others = {name: order for name, order in found.items() if name != group}
    touched = {name: value for name, value in second.items() if group in axes[name]}
    total: Tensor | float = 0.0
    for name, value in permute(touched, others, axes).items():
        axis = axes[name].index(group)
        one, two = (tensor.movedim(axis, 0).reshape(tensor.shape[axis], -1).double() for tensor in (first[name], value))
        total = total + one @ two.T
    assert isinstance(total, Tensor)
    return total


def _blocks(gain: Tensor, heads: int) -> Tensor:
    """(n, n) as (heads, heads, n / heads, n / heads)."""
    size = len(gain) // heads
    return gain.view(heads, size, heads, size).transpose(1, 2)


def _assign(gain: Tensor) -> tuple[Tensor, float]:
    """For every row its column, and the sum of what was chosen."""
    rows, columns = linear_sum_assignment(gain.cpu().numpy(), maximize=True)
    return torch.from_numpy(columns).to(gain.device), float(gain[rows, columns].sum())
