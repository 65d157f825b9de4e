"""The engine with its options as keywords."""

from eva_bench.eva import EvaResult, SolverConfig, compute_subspaces

ARGUMENTS = ("ranks", "forward", "row_mask", "seed", "progress")


def subspaces(module, targets, batches, *, components, **options) -> EvaResult:
    """`compute_subspaces` with every option of SolverConfig as a keyword."""
    arguments = {name: options.pop(name) for name in ARGUMENTS if name in options}
    return compute_subspaces(
        module, targets, batches, components=components, config=SolverConfig(**options), **arguments
    )
