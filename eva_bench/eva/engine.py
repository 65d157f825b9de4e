"""From a model and batches to the leading directions of every target layer's input."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

from torch import nn

from eva_bench.eva import collective
from eva_bench.eva.errors import EvaError
from eva_bench.eva.incremental import IncrementalPasses
from eva_bench.eva.inputs import InputTap, default_forward
from eva_bench.eva.solver import Settings, model_device
from eva_bench.eva.streaming import Accumulation
from eva_bench.eva.subspace import EvaResult, LayerSubspace
from eva_bench.models.batches import default_row_mask

SOLVERS = ("auto", "exact", "sketch", "incremental")


def compute_subspaces(
    module: nn.Module,
    targets: Sequence[str],
    batches: Iterable | Callable,
    *,
    components: int | Mapping[str, int],
    solver: str = "auto",
    center: bool = True,
    tolerance: float = 0.003,
    tau: float = 0.99,
    min_batches: int = 4,
    max_batches: int = 256,
    columns: int | None = None,
    second_pass: bool = False,
    ranks: Callable[[dict[str, LayerSubspace]], dict[str, int]] | None = None,
    forward: Callable[[nn.Module, object], object] | None = None,
    row_mask: Callable | None = None,
    use_label_mask: bool = False,
    autocast: str | bool = "auto",
    stop_early: bool = True,
    seed: int = 0,
    progress: Callable[[int, float | None], None] | None = None,
) -> EvaResult:
    """Find the directions of largest variance of the inputs of the target layers.

    Args:
        module: the model; only read, forward passes without gradients in evaluation mode.
        targets: names of Linear or Conv1D layers; inputs are (..., in), every leading position is a row.
        batches: list, DataLoader or callable returning an iterator. With several processes each reads its own share.
        components: k, for all layers or per layer.
        solver: `exact` keeps all second moments, `sketch` a part that grows linearly with the width, `auto` takes
            `exact` up to width 256 and `sketch` above, `incremental` is the paper's procedure.
        center: covariance (True) or raw second moment.
        tolerance: stop when more batches would add less than this share of the explained variance, as measured on
            batches that neither the current nor the previous basis has seen.
        tau: cosine at which a component has converged, for `incremental`.
        min_batches, max_batches: never stop before, never go on after; counted over all processes.
        columns: width of the sketch (default 1.5 k, at least k + 16).
        second_pass: read the same batches once more with the final basis as the sketch's test matrix.
        ranks: maps subspaces to the ranks that will be used; only these components must have converged.
        forward: how to run the model on a batch; default: a dict as keywords without labels, a tuple by its first
            element, a tensor as it is. `row_mask(batch)`: one bool tensor over positions or several, each for the
            inputs whose leading shape it has; default: attention mask, and labels != -100 with `use_label_mask`.
        autocast: bf16 for the passes: True, False, or `auto` (float32 models of width 256 and more, on hardware that
            computes in bf16). Sums are float32 and float64 in any case.
        stop_early: leave the forward pass after the last target.
        progress: called with the batches read so far and the last measured gap.

    Returns:
        Subspaces per layer in the order of `targets`; layers that receive the same tensor share them.

    Raises:
        EvaError: unusable layer, NaN, a target that never runs, too few rows, empty or unrepeatable batches.

    Source: EVA (arXiv:2410.07170) sections 3.2 and 3.5; the solvers are described where they are defined.
    """
    if solver not in SOLVERS:
        raise EvaError(f"unknown solver {solver!r}: choose one of {', '.join(SOLVERS)}")
    tap = InputTap(module, targets, stop_early)
    counts = _component_counts(tap.widths, components)
    settings = Settings(
        solver=solver,
        center=center,
        tolerance=tolerance,
        tau=tau,
        min_batches=min_batches,
        max_batches=max_batches,
        columns=columns,
        second_pass=second_pass,
        ranks=ranks,
        forward=forward or default_forward,
        row_mask=row_mask or partial(default_row_mask, use_label_mask=use_label_mask),
        trim=row_mask is None,
        autocast=autocast,
        seed=seed,
        progress=progress,
    )
    passes = IncrementalPasses if solver == "incremental" else Accumulation
    collective.reset_peak(model_device(module))
    with tap:
        return passes(tap, batches, counts, settings).result()


def _component_counts(widths: dict[str, int], components: int | Mapping[str, int]) -> dict[str, int]:
    counts = {name: components if isinstance(components, int) else components[name] for name in widths}
    for name, count in counts.items():
        if not 1 <= count <= widths[name]:
            raise EvaError(f"layer '{name}' has {widths[name]} inputs; {count} components cannot be taken from them")
    return counts
