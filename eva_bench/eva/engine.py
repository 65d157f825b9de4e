"""From a model and batches to the leading directions of every target layer's input."""

from collections.abc import Mapping, Sequence

from torch import nn

from eva_bench.eva import collective
from eva_bench.eva.config import SolverConfig
from eva_bench.eva.errors import EvaError
from eva_bench.eva.incremental import IncrementalSolver
from eva_bench.eva.inputs import InputTap
from eva_bench.eva.reader import Batches, BatchReader, Forward, Progress, RowMask, SelectRows
from eva_bench.eva.solver import ShareOut, Solver
from eva_bench.eva.streaming import StreamingSolver
from eva_bench.eva.subspace import EvaResult


def compute_subspaces(
    module: nn.Module,
    targets: Sequence[str],
    batches: Batches,
    *,
    components: int | Mapping[str, int],
    config: SolverConfig | None = None,
    ranks: ShareOut | None = None,
    forward: Forward | None = None,
    row_mask: RowMask | None = None,
    select_rows: SelectRows | None = None,
    share_inputs: bool = True,
    together: bool = True,
    skip_starved: bool = False,
    seed: int = 0,
    progress: Progress | None = None,
) -> EvaResult:
    """Find the directions of largest variance of the inputs of the target layers.

    Args:
        module: the model; only read, forward passes without gradients in evaluation mode.
        targets: names of Linear or Conv1D layers; inputs are (..., in), every leading position is a row.
        batches: list, DataLoader or callable returning an iterator. With several processes each reads its own share.
        components: k, for all layers or per layer.
        config: every option of the computation; None: the defaults of `SolverConfig`.
        ranks: maps subspaces to the ranks that will be used; only these components must have converged.
        forward: how to run the model on a batch; None: a dict as keywords without labels, a tuple by its first
            element, a tensor as it is.
        row_mask: maps a batch to one bool tensor over positions or several, each for the inputs whose leading shape
            it has; None: the attention mask and, with `config.use_label_mask`, the labels.
        select_rows: maps a batch to a function of a layer's name and input (..., in) to its rows (n, in), instead.
        share_inputs: layers that receive the same tensor form one group, for which rows are selected once.
        together: with torch.distributed, all processes work on one result.
        skip_starved: leave out layers that receive fewer rows than they need components, instead of refusing.
        seed: of the sketch's first test matrix and of randomised decompositions.
        progress: called with the batches read so far and the last measured gap.

    Returns:
        Subspaces per layer in the order of `targets`; layers that receive the same tensor share them.

    Raises:
        EvaError: unusable layer, NaN, a target that never runs, too few rows, empty or unrepeatable batches.

    Source: EVA (arXiv:2410.07170) sections 3.2 and 3.5; the solvers are described where they are defined.
    """
    config = config or SolverConfig()
    tap = InputTap(module, targets, config.stop_early, share_inputs)
    counts = _component_counts(tap.widths, components)
    kind: type[Solver] = IncrementalSolver if config.solver == "incremental" else StreamingSolver
    with tap:
        reader = BatchReader(
            tap,
            batches,
            forward=forward,
            row_mask=row_mask,
            select_rows=select_rows,
            use_label_mask=config.use_label_mask,
            autocast=config.autocast,
        )
        collective.reset_peak(reader.device)
        return kind(
            reader,
            counts,
            config,
            ranks=ranks,
            seed=seed,
            progress=progress,
            processes=collective.Processes(together),
            skip_starved=skip_starved,
        ).result()


def _component_counts(widths: dict[str, int], components: int | Mapping[str, int]) -> dict[str, int]:
    counts = {name: components if isinstance(components, int) else components[name] for name in widths}
    for name, count in counts.items():
        if not 1 <= count <= widths[name]:
            raise EvaError(f"layer '{name}' has {widths[name]} inputs; {count} components cannot be taken from them")
    return counts
