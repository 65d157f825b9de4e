"""The default way: add up second moments or sketches of them until fresh batches bring nothing new."""

import math
from typing import Any

import torch
from torch import Tensor

from eva_bench.eva import collective
from eva_bench.eva.convergence import ConvergenceCheck, check_points
from eva_bench.eva.errors import EvaError
from eva_bench.eva.moments import ExactMoments, Moments, SketchedMoments, Spectrum
from eva_bench.eva.reader import computes_in_bf16
from eva_bench.eva.solver import Solver
from eva_bench.eva.subspace import EvaResult, LayerSubspace

EXACT_WIDTH = 256  # up to here `auto` keeps every second moment: no slower than a sketch, and nothing is lost
CHECK_SHARE = 1 / 8  # of the batches read so far: how many fresh ones a check measures on; they count afterwards


def sketch_columns(components: int) -> int:
    """Default width of a sketch that is to give so many components."""
    return components + max(components // 2, 16)


class StreamingSolver(Solver):
    """Solvers `exact`, `sketch` and `auto`."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.moments: dict[str, Moments] = {}
        self.check: ConvergenceCheck | None = None
        self.batches_seen = 0  # by all processes
        self.refining = False  # second pass: only sketches still learn

    def result(self) -> EvaResult:
        self._collect()
        if self.config.second_pass and any(isinstance(m, SketchedMoments) for m in self.moments.values()):
            self._refine()
        kinds = {"sketch" if isinstance(m, SketchedMoments) else "exact" for m in self.moments.values()}
        return self.present(self._spectra(), self.batches_seen, "+".join(sorted(kinds)))

    def take(self, leader: str, rows: Tensor) -> None:
        if leader not in self.moments:
            self.moments[leader] = self._new_moments(leader, rows)
        moments = self.moments[leader]
        if self.refining and not isinstance(moments, SketchedMoments):
            return
        # Float32 from here on. Converted first: a difference of mixed types takes several times as long.
        rows = rows - moments.shift if rows.dtype == torch.float32 else rows.float().sub_(moments.shift)
        rows = moments.add(rows)
        if self.check:
            self.check.add(leader, rows)

    def _new_moments(self, leader: str, rows: Tensor) -> Moments:
        center, solver = self.config.center, self.config.solver
        shift = rows.float().mean(0) if center and len(rows) else rows.new_zeros(rows.shape[1], dtype=torch.float32)
        k = self.components(leader)
        columns = self.config.columns or sketch_columns(k)
        exact = solver == "exact" or (solver == "auto" and len(shift) <= EXACT_WIDTH)
        if exact or columns >= len(shift):
            return ExactMoments(shift, center)
        return SketchedMoments(shift, columns, center, self.seed, low_precision=computes_in_bf16(shift.device))

    def _collect(self) -> None:
        """Read batches; check the result now and then; stop when it has converged, at the end or at the cap."""
        config = self.config
        older: dict[str, LayerSubspace] | None = None
        older_batches = 0
        slopes = [math.inf]  # of the error as a function of 1 / batches, one per check
        for point in check_points(config.max_batches):
            more = self._read(math.ceil(point / collective.processes()) - self.reader.count)
            if not more or point == config.max_batches:
                self.stopped = "cap" if more else "data"
                break
            spectra = self._spectra()
            newer, checked_at = self.subspaces(spectra), self.batches_seen
            self._renew(spectra)
            if older:
                gain = self._compare(older, newer)
                if gain is not None:
                    slopes.append(abs(gain) / (1 / older_batches - 1 / checked_at))  # a loss is noise of that size
            self._judge(slopes)
            if self.converged and self.batches_seen >= config.min_batches:
                self.stopped = "tolerance"
                break
            older, older_batches = newer, checked_at
        self._judge(slopes)

    def _judge(self, slopes: list[float]) -> None:
        """Estimate what is missing, from the worse of the last two checks: a single one may be lucky."""
        gap = max(slopes[-2:]) / self.batches_seen
        self.gap = gap if math.isfinite(gap) else None
        self.converged = gap <= self.config.tolerance

    def _read(self, count: int) -> bool:
        """Read up to `count` batches on each process and merge; whether any process found one at the end."""
        more = True
        for _ in range(count):
            more = more and self.read()
        return self._merge(more)

    def _merge(self, more: bool) -> bool:
        """Add up what all processes have read since the last time."""
        flags = torch.tensor([self.reader.count, self.reader.count > 0, more], dtype=torch.float64, device=self.device)
        collective.sum_over_processes([flags])
        batches, readers, alive = flags.tolist()
        if readers < collective.processes():
            raise EvaError("the loader of batches is empty" + (" on some process" if readers else ""))
        self.check_targets()
        self.batches_seen = int(batches)
        groups = list(self.moments.values())
        if collective.processes() > 1:
            shifts = [moments.shift.clone() for moments in groups]
            collective.share_from_first(shifts)
            for moments, shift in zip(groups, shifts, strict=True):
                moments.move(shift)
            collective.sum_over_processes([moments.recent for moments in groups])
        for name, moments in self.moments.items():
            moments.absorb()
            if not torch.isfinite(moments.sums).all():
                raise EvaError(f"the inputs of layer '{name}' contain NaN or infinite values")
        return alive > 0

    def _spectra(self) -> dict[str, Spectrum]:
        return {name: moments.spectrum() for name, moments in self.moments.items()}

    def _renew(self, spectra: dict[str, Spectrum]) -> None:
        for name, moments in self.moments.items():
            moments.renew(spectra[name])

    def _compare(self, older: dict[str, LayerSubspace], newer: dict[str, LayerSubspace]) -> float | None:
        """Read some more batches and compare the two bases on them."""
        self.check = ConvergenceCheck(older, newer, self.moments, self.used_ranks(newer))
        self._read(math.ceil(self.batches_seen * CHECK_SHARE / collective.processes()))
        gain, self.check = self.check.gain(), None
        return gain

    def _refine(self) -> None:
        """Read the same batches again, now that the sketch's test matrix is nearly right."""
        self._renew(self._spectra())
        for moments in self.moments.values():
            if isinstance(moments, SketchedMoments):
                moments.sums.zero_()
        self.refining = True
        count = self.reader.count
        self.reader.restart()
        self._read(count)
        if self.reader.count < count:
            raise EvaError("the second pass found fewer batches than the first; give a list or a callable")
