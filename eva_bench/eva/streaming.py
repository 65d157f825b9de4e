"""The default way: add up second moments or sketches of them until fresh batches bring nothing new."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from eva_bench.eva import collective
from eva_bench.eva.convergence import Trial, check_points
from eva_bench.eva.errors import EvaError
from eva_bench.eva.inputs import open_batches
from eva_bench.eva.moments import SecondMoment, Sketch, Spectrum, Statistic
from eva_bench.eva.solver import Passes, computes_in_bf16
from eva_bench.eva.subspace import EvaResult, LayerSubspace

EXACT_WIDTH = 256  # up to here `auto` keeps every second moment: no slower than a sketch, and nothing is lost
TRIAL_SHARE = 1 / 8  # of the batches read so far: how many fresh ones a look measures on; they are counted afterwards


def sketch_columns(components: int) -> int:
    """Default width of a sketch that is to give so many components."""
    return components + max(components // 2, 16)


class Accumulation(Passes):
    """Solvers `exact`, `sketch` and `auto`."""

    def __init__(self, *args):
        super().__init__(*args)
        self.statistics: dict[str, Statistic] = {}
        self.trial: Trial | None = None
        self.batches_seen = 0  # by all processes
        self.refining = False  # second pass: only sketches still learn

    def result(self) -> EvaResult:
        self._collect(open_batches(self.batches))
        if self.settings.second_pass and any(isinstance(s, Sketch) for s in self.statistics.values()):
            self._refine()
        kinds = {"sketch" if isinstance(s, Sketch) else "exact" for s in self.statistics.values()}
        return self.present(self._spectra(), self.batches_seen, "+".join(sorted(kinds)))

    def take(self, leader: str, rows: Tensor) -> None:
        if leader not in self.statistics:
            self.statistics[leader] = self._new_statistic(leader, rows)
        statistic = self.statistics[leader]
        if self.refining and not isinstance(statistic, Sketch):
            return
        # Float32 from here on. Converted first: a difference of mixed types takes several times as long.
        rows = rows - statistic.shift if rows.dtype == torch.float32 else rows.float().sub_(statistic.shift)
        rows = statistic.add(rows)
        if self.trial:
            self.trial.add(leader, rows)

    def _new_statistic(self, leader: str, rows: Tensor) -> Statistic:
        center, solver = self.settings.center, self.settings.solver
        shift = rows.float().mean(0) if center and len(rows) else rows.new_zeros(rows.shape[1], dtype=torch.float32)
        k = self.components(leader)
        columns = self.settings.columns or sketch_columns(k)
        exact = solver == "exact" or (solver == "auto" and len(shift) <= EXACT_WIDTH)
        if exact or columns >= len(shift):
            return SecondMoment(shift, center)
        return Sketch(shift, columns, center, self.settings.seed, low_precision=computes_in_bf16(shift.device))

    def _collect(self, source: Iterator) -> None:
        """Read batches; look at the result now and then; stop when it has settled, at the end or at the cap."""
        settings = self.settings
        older: dict[str, LayerSubspace] | None = None
        older_batches = 0
        slopes = [math.inf]  # of the error as a function of 1 / batches, one per look
        for point in check_points(settings.max_batches):
            more = self._read(source, math.ceil(point / collective.processes()) - self.read)
            if not more or point == settings.max_batches:
                self.stopped = "cap" if more else "data"
                break
            spectra = self._spectra()
            newer, looked_at = self.subspaces(spectra), self.batches_seen
            self._renew(spectra)
            if older:
                gain = self._try(source, older, newer)
                if gain is not None:
                    slopes.append(abs(gain) / (1 / older_batches - 1 / looked_at))  # a loss is noise of that size
            self._judge(slopes)
            if self.converged and self.batches_seen >= settings.min_batches:
                self.stopped = "tolerance"
                break
            older, older_batches = newer, looked_at
        self._judge(slopes)

    def _judge(self, slopes: list[float]) -> None:
        """Estimate what is missing, from the worse of the last two looks: a single one may be lucky."""
        gap = max(slopes[-2:]) / self.batches_seen
        self.gap = gap if math.isfinite(gap) else None
        self.converged = gap <= self.settings.tolerance

    def _read(self, source: Iterator, count: int) -> bool:
        """Read up to `count` batches on each process and merge; whether any process found one at the end."""
        more = True
        for _ in range(count):
            more = more and self.forward(source)
        return self._merge(more)

    def _merge(self, more: bool) -> bool:
        """Add up what all processes have read since the last time."""
        flags = torch.tensor([self.read, self.read > 0, more], dtype=torch.float64, device=self.device)
        collective.sum_over_processes([flags])
        batches, readers, alive = flags.tolist()
        if readers < collective.processes():
            raise EvaError("the loader of batches is empty" + (" on some process" if readers else ""))
        self.check_targets()
        self.batches_seen = int(batches)
        statistics = list(self.statistics.values())
        if collective.processes() > 1:
            shifts = [statistic.shift.clone() for statistic in statistics]
            collective.share_from_first(shifts)
            for statistic, shift in zip(statistics, shifts, strict=True):
                statistic.move(shift)
            collective.sum_over_processes([statistic.recent for statistic in statistics])
        for name, statistic in self.statistics.items():
            statistic.absorb()
            if not torch.isfinite(statistic.sums).all():
                raise EvaError(f"the inputs of layer '{name}' contain NaN or infinite values")
        return alive > 0

    def _spectra(self) -> dict[str, Spectrum]:
        return {name: statistic.spectrum() for name, statistic in self.statistics.items()}

    def _renew(self, spectra: dict[str, Spectrum]) -> None:
        for name, statistic in self.statistics.items():
            statistic.renew(spectra[name])

    def _try(self, source: Iterator, older, newer: dict[str, LayerSubspace]) -> float | None:
        """Read some more batches and compare the two bases on them."""
        self.trial = Trial(older, newer, self.statistics, self.used_ranks(newer))
        self._read(source, math.ceil(self.batches_seen * TRIAL_SHARE / collective.processes()))
        gain, self.trial = self.trial.gain(), None
        return gain

    def _refine(self) -> None:
        """Read the same batches again, now that the sketch's test matrix is nearly right."""
        self._renew(self._spectra())
        for statistic in self.statistics.values():
            if isinstance(statistic, Sketch):
                statistic.sums.zero_()
        self.refining, again = True, open_batches(self.batches, again=True)
        count, self.read = self.read, 0
        self._read(again, count)
        if self.read < count:
            raise EvaError("the second pass found fewer batches than the first; give a list or a callable")
