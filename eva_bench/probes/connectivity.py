"""Straight paths between models: barriers, merging, and the permutations and singular vectors behind them.

The barrier is max over t of L(t) - ((1 - t) L(0) + t L(1)) (Frankle et al., arXiv:1912.05671). Models fine-tuned from
one base share the places of their units, so that permutations are a negative control for them; two pretrainings do not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from eva_bench.methods.layer import Factors, own_weight
from eva_bench.models.linear import weight_matrix
from eva_bench.probes.permutations import Permutations, State, Wiring, match, permute, wiring
from eva_bench.probes.result import Findings, Summary
from eva_bench.probes.subjects import Subject
from eva_bench.probes.trained import install
from eva_bench.probes.workbench import Workbench
from eva_bench.system.arguments import Arguments
from eva_bench.system.errors import UserError

POINTS = 11  # of a path


def barrier(values: Sequence[float]) -> float:
    """How far a path rises above the straight line between its ends.

    Args:
        values: the loss at equal steps from one end to the other; for a score, pass its negative.
    """
    steps = len(values) - 1
    return max(value - (values[0] + (values[-1] - values[0]) * i / steps) for i, value in enumerate(values))


def merge(states: Sequence[State], weights: Sequence[float] | None = None) -> State:
    """Weighted mean of the parameters of several models; equal weights by default."""
    weights = weights or [1 / len(states)] * len(states)
    return {name: sum(w * state[name] for w, state in zip(weights, states, strict=True)) for name in states[0]}


def path(first: State, second: State, value: Callable[[State], float], points: int = POINTS) -> list[float]:
    """What a model is worth along the straight line between two."""
    steps = [i / (points - 1) for i in range(points)]
    return [value(merge((first, second), (1 - t, t))) for t in steps]


def mixed_update(first: Factors, second: Factors, t: float) -> Tensor:
    """The exact interpolation of two updates, (1 - t) first + t second: rank up to the sum of both."""
    return (1 - t) * first.delta() + t * second.delta()


def mixed_factors(first: Factors, second: Factors, t: float) -> Tensor:
    """The common mistake: A and B averaged apart. It depends on the basis that A and B are written in."""
    A = (1 - t) * first.A + t * second.A
    B = (1 - t) * first.scale * first.scaled_B() + t * second.scale * second.scaled_B()
    return B @ A


def alignment(first: Tensor, second: Tensor) -> float:
    """How far the singular vectors of two matrices agree index by index, 1 where they are the same.

    sum_i s_i |<u_i, u'_i>| |<v_i, v'_i>| / sum_i s_i, weighted by the first matrix's singular values as Ito et al.
    (arXiv:2402.04051) weight them.
    """
    U, S, V = torch.linalg.svd(first, full_matrices=False)
    U2, _, V2 = torch.linalg.svd(second, full_matrices=False)
    cosines = (U * U2).sum(0).abs() * (V * V2).sum(1).abs()
    return float((S * cosines).sum() / S.sum())


def write_state(module: nn.Module, state: State) -> None:
    """Put parameters into a model, in place."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.copy_(state[name])


def read_state(module: nn.Module) -> State:
    """A copy of a model's parameters, each tied one once."""
    return {name: parameter.detach().clone() for name, parameter in module.named_parameters()}


def straight_through(
    first: State, second: State, units: Wiring, module: nn.Module, loss: Callable[[], Tensor],
    *, steps: int, lr: float, seed: int,
) -> tuple[Permutations, list[float]]:  # fmt: skip
    """Permutations of the second model found by the loss half way (straight-through estimator, arXiv:2209.04836).

    A copy of the first model is trained. In every step the second is matched to it, the gradient is taken half way
    between the first and the matched second, and passed on as if the copy itself stood in the second's place.

    Args:
        module: a model that the parameters can be put into; left with other ones.
        loss: the loss of `module` as it is.

    Returns:
        The permutations with the lowest loss half way, and that loss in every step.
    """
    moving = {name: value.clone() for name, value in first.items()}
    optimizer = torch.optim.Adam(list(moving.values()), lr=lr)
    best, losses = {}, []
    for _ in range(steps):
        found = match(moving, second, units, seed)
        write_state(module, merge((first, permute(second, found, units.axes))))
        parameters = dict(module.named_parameters())
        for parameter in parameters.values():
            parameter.requires_grad_(True)
        value = loss()
        gradients = torch.autograd.grad(value, list(parameters.values()), allow_unused=True)
        losses.append(float(value.detach()))
        if losses[-1] == min(losses):
            best = found
        for name, gradient in zip(parameters, gradients, strict=True):
            moving[name].grad = None if gradient is None else gradient / 2  # half way: each end counts half
        optimizer.step()
    return best, losses


class Options(Arguments):
    """Settings of the probe.

    Attributes:
        points: of a path.
        permute: also match the hidden units of the second model to the first's.
        scores: also the task's score at the ends and half way, and of all models merged.
    """

    points: int = POINTS
    permute: bool = False
    scores: bool = False


def probe(subjects: Sequence[Subject], options: Options) -> Findings:
    """Path and barrier between two runs of one base model, and the mean of all models that are given.

    Raises:
        UserError: fewer than two runs, or runs of different base models.
    """
    if len(subjects) < 2:
        raise UserError("connectivity needs two runs or more: run=<id>,<id>.")
    if len({str(subject.checkpoint) for subject in subjects}) > 1:
        raise UserError("connectivity needs runs that started from one base model.")
    bench = Workbench(subjects[0])
    module = bench.bundle.module
    updates = [{name: layer.update for name, layer in subject.layers()} for subject in subjects]
    averaged = _averaged_factors(*subjects[:2])
    states = _states(subjects)

    def at(state: State, value: Callable[[], float] = bench.loss) -> float:
        write_state(module, state)
        return value()

    summary: Summary = {}
    layers: dict[str, dict[str, float | int | list[float]]] = {}
    paths = {"straight": states[1]}
    if options.permute:
        units = wiring(module)
        paths["permuted"] = permute(states[1], match(states[0], states[1], units, 0), units.axes)
    for name, second in paths.items():
        losses = path(states[0], second, at, options.points)
        layers[name] = {"loss": losses}
        summary |= {f"{name}_barrier": barrier(losses), f"{name}_half_way": losses[len(losses) // 2]}
    shared = [name for name in updates[0] if name in updates[1]]
    pairs = [(updates[0][name], updates[1][name]) for name in shared]
    cosines = [float((a * b).sum() / (a.norm() * b.norm())) for a, b in pairs if a.any() and b.any()]
    summary["update_alignment"] = sum(alignment(*pair) for pair in pairs) / len(pairs)
    summary["update_cosine"] = sum(cosines) / len(cosines) if cosines else None
    if averaged:
        at(merge(states[:2]))
        with torch.no_grad():
            for name, weight in averaged.items():
                weight_matrix(module.get_submodule(name)).copy_(weight)
        summary["factors_half_way"] = bench.loss()
    merged = merge(states)
    summary["merged_loss"] = at(merged)
    if options.scores:
        ends = {"first": states[0], "second": states[1], "half_way": merge(states[:2]), "merged": merged}
        summary |= {f"{name}_score": at(state, bench.score) for name, state in ends.items()}
    return Findings(summary=summary, layers=layers)


def _averaged_factors(first: Subject, second: Subject) -> dict[str, Tensor]:
    """Weights half way between two adapters whose A and B are averaged apart; empty unless both have such factors."""
    one, two = first.trained.factors, second.trained.factors
    alike = one.keys() == two.keys() and all(one[name].rank == two[name].rank for name in one)
    if not alike or any(part.magnitude is not None for part in (*one.values(), *two.values())):
        return {}
    bases = {name: layer.base for name, layer in first.layers()} if one else {}
    return {name: base + mixed_factors(one[name], two[name], 0.5) for name, base in bases.items()}


def _states(subjects: Sequence[Subject]) -> list[State]:
    """The merged parameters of every subject by the same names; a head tied to the embedding is untied for all."""
    changed = dict.fromkeys(name for subject in subjects for name in subject.trained.factors)
    states = []
    for subject in subjects:
        mine = subject.bundle.module
        for name in changed:
            own_weight(mine, mine.get_submodule(name))
        install(mine, subject.trained)
        states.append(read_state(mine))
    return states
