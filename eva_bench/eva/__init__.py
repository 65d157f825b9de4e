"""EVA's engine: the directions in which the inputs of each layer vary most, and ranks to match."""

from typing import TYPE_CHECKING, Any

from eva_bench.eva.config import SolverConfig
from eva_bench.eva.engine import compute_subspaces
from eva_bench.eva.errors import EvaError
from eva_bench.eva.ranks import redistribute_ranks
from eva_bench.eva.subspace import EvaResult, LayerSubspace

if TYPE_CHECKING:
    from eva_bench.eva.library import get_eva_state_dict, initialize_eva, initialize_lora_eva_weights

__all__ = [
    "EvaError",
    "EvaResult",
    "LayerSubspace",
    "SolverConfig",
    "compute_subspaces",
    "get_eva_state_dict",
    "initialize_eva",
    "initialize_lora_eva_weights",
    "redistribute_ranks",
]


def __getattr__(name: str) -> Any:
    """The functions for PEFT models, imported on first use: PEFT takes seconds and runs of the suite do without it."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from eva_bench.eva import library  # noqa: PLC0415 - late, so that what needs it only sometimes starts fast

    return getattr(library, name)
