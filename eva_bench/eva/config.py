"""The one place of every option of the engine."""

import math
from dataclasses import dataclass
from typing import Literal, get_args, get_type_hints

from eva_bench.eva.errors import EvaError


@dataclass(frozen=True, kw_only=True)
class SolverConfig:
    """How subspaces are computed; the values of the suite are in `conf/method/eva.yaml`.

    Attributes:
        solver: `exact` keeps all second moments, `sketch` a part that grows linearly with the width, `auto` takes
            `exact` up to width 256 (512 where passes are bf16) and `sketch` above, `incremental` is the paper's
            procedure.
        center: covariance (True) or raw second moment.
        use_label_mask: count only positions whose label is not -100.
        tolerance: stop when endless data would add less than this share of the captured variance over all layers, as
            estimated from how much batches differ.
        layer_tolerance: and less than this share on every single layer.
        tau: cosine at which a component has converged, solver `incremental`.
        min_batches: never stop before, counted over all processes.
        max_batches: never read more, counted over all processes.
        columns: width of the sketch; None: 1.5 times the components, at least 16 more than these.
        second_pass: read the same batches once more with the final basis as the sketch's test matrix.
        autocast: bf16 for the passes: True, False, or `auto` (float32 models of width 256 and more, on hardware that
            computes in bf16). Sums are float32 and float64 in any case.
        stop_early: leave the forward pass after the last target.
    """

    solver: Literal["auto", "exact", "sketch", "incremental"] = "auto"
    center: bool = True
    use_label_mask: bool = False
    tolerance: float = 0.0035
    layer_tolerance: float = 0.0315
    tau: float = 0.99
    min_batches: int = 24
    max_batches: int = 256
    columns: int | None = None
    second_pass: bool = False
    autocast: Literal["auto"] | bool = "auto"
    stop_early: bool = True

    def __post_init__(self) -> None:
        known = get_args(get_type_hints(SolverConfig)["solver"])
        if self.solver not in known:
            raise EvaError(f"unknown solver {self.solver!r}: choose one of {', '.join(known)}")
        for name in ("tolerance", "layer_tolerance"):  # 0: read all there is
            if not 0 <= getattr(self, name) < math.inf:
                raise EvaError(f"{name}={getattr(self, name)} must be at least 0")
        for name in ("tau", "min_batches", "max_batches", "columns"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise EvaError(f"{name}={value} must be greater than 0")
        if self.tau > 1:
            raise EvaError(f"tau={self.tau} is a cosine: at most 1")
