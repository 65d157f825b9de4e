"""EVA's engine: the directions in which the inputs of each layer vary most, and ranks to match."""

from eva_bench.eva.config import SolverConfig
from eva_bench.eva.engine import compute_subspaces
from eva_bench.eva.errors import EvaError
from eva_bench.eva.library import initialize_eva
from eva_bench.eva.ranks import redistribute_ranks
from eva_bench.eva.subspace import EvaResult, LayerSubspace

__all__ = [
    "EvaError",
    "EvaResult",
    "LayerSubspace",
    "SolverConfig",
    "compute_subspaces",
    "initialize_eva",
    "redistribute_ranks",
]
