"""The default solver: add up second moments, or sketches of them, until more batches would change little."""

import math
from typing import Any

import torch
from torch import Tensor

from eva_bench.eva.convergence import BatchVariation
from eva_bench.eva.errors import EvaError
from eva_bench.eva.moments import ExactMoments, HalvedMoments, Moments, SketchedMoments, Spectrum
from eva_bench.eva.reader import computes_in_bf16
from eva_bench.eva.solver import Solver
from eva_bench.eva.subspace import EvaResult

EXACT_WIDTH = 256  # up to here `auto` keeps every second moment: no slower than a sketch, and nothing is lost
HALVED_WIDTH = 512  # up to here as well where passes are bf16, of every other row
REST = 0.5  # a layer rests once its own gap is this share of the tolerance for all
FIRST_CHECKS = (2, 4, 8)  # batches: a sketch needs a few power steps, an estimate of the error a few batches


def sketch_columns(components: int) -> int:
    """Default width of a sketch that is to give so many components."""
    return components + max(components // 2, 16)


class StreamingSolver(Solver):
    """Solvers `exact`, `sketch` and `auto`.

    At every check the error of each layer is estimated. A layer that is near enough rests: its inputs are no longer
    looked at, and the forward pass ends after the last layer that does not rest.
    """

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.moments: dict[str, Moments] = {}
        self.variation: dict[str, BatchVariation] = {}
        self.spectra: dict[str, Spectrum] = {}  # of the last check
        self.batches: dict[str, int] = {}  # behind the moments of each group, of all processes
        self.gaps: dict[str, float] = {}  # per group, estimated share of the captured variance that is missing
        self.resting: set[str] = set()
        self.batches_seen = 0  # by all processes
        self.needed = 0.0  # batches, as far as the last check can tell
        self.refining = False  # second pass: only sketches still learn

    def result(self) -> EvaResult:
        """Read until the tolerance is met, the batches end or the cap is reached."""
        self._collect()
        if self.config.second_pass and any(isinstance(m, SketchedMoments) for m in self.moments.values()):
            self._refine()
        kinds = {"sketch" if isinstance(m, SketchedMoments) else "exact" for m in self.moments.values()}
        return self.present(self.spectra, self.batches_seen, "+".join(sorted(kinds)))

    def take(self, leader: str, rows: Tensor) -> None:
        """Add the rows (n, in) that the group of this layer received to its moments."""
        if not len(rows):
            return
        if leader not in self.moments:
            self._start_group(leader, rows)
        moments = self.moments[leader]
        if not self.refining:
            self.variation[leader].add(moments.add(rows))
        elif isinstance(moments, SketchedMoments):
            moments.add(rows)

    def _start_group(self, leader: str, rows: Tensor) -> None:
        center, solver = self.config.center, self.config.solver
        shift = rows.float().mean(0) if center else rows.new_zeros(rows.shape[1], dtype=torch.float32)
        columns = min(self.config.columns or sketch_columns(self.components(leader)), len(shift))
        exact = solver == "exact" or (solver == "auto" and len(shift) <= EXACT_WIDTH)
        if exact or columns == len(shift):
            self.moments[leader] = ExactMoments(shift, center)
        elif solver == "auto" and len(shift) <= HALVED_WIDTH and self.reader.bf16:
            self.moments[leader] = HalvedMoments(shift, columns, center, self.seed)
        else:
            low = computes_in_bf16(shift.device)
            self.moments[leader] = SketchedMoments(shift, columns, center, self.seed, low_precision=low)
        self.variation[leader] = BatchVariation(columns, shift.device)

    def _collect(self) -> None:
        """Read batches; check the result now and then; stop when it has converged, at the end or at the cap."""
        limit = self.config.max_batches
        point = FIRST_CHECKS[0]
        asked = 0  # batches of each process: grows at every check, so that one whose share is larger goes on alone
        while True:
            asked = max(math.ceil(min(point, limit) / self.processes.count), asked + 1)
            more = self._read(asked - self.reader.count)
            self._check()
            if self.converged and self.batches_seen >= self.config.min_batches:
                self.stopped = "tolerance"
                return
            if not more or self.batches_seen >= limit:
                self.stopped = "cap" if more else "data"
                return
            self._renew()
            point = self._next_check()

    def _check(self) -> None:
        """Decompose what has been read, estimate what is missing, and say which layers may rest."""
        for name in self._active():
            self.spectra[name] = self.moments[name].spectrum()
        if not self.spectra:
            return
        layers = self.subspaces(self.spectra)
        ranks = self.used_ranks(layers)
        self.gaps = {}
        for leader, spectrum in self.spectra.items():
            rank = max(ranks[name] for name, layer in layers.items() if layer.group == leader)
            gap = self.variation[leader].gap(spectrum, rank, self.batches[leader])
            if gap is not None:
                self.gaps[leader] = gap
            elif not self.skip_starved:
                return
        tolerance, layer_tolerance = self.config.tolerance, self.config.layer_tolerance
        if not self.gaps:
            return
        captured = {name: layer.share(ranks[name]) for name, layer in layers.items() if layer.group in self.gaps}
        missing = sum(share * self.gaps[layers[name].group] for name, share in captured.items())
        self.gap = missing / max(sum(captured.values()), 1e-30)
        self.converged = self.gap <= tolerance and max(self.gaps.values()) <= layer_tolerance
        if self.batches_seen >= self.config.min_batches:
            enough = layer_tolerance if self.gap <= tolerance else REST * tolerance
            self.resting = {leader for leader, gap in self.gaps.items() if gap <= enough}
            self.tap.listen(set(self._active()))
        if tolerance > 0 and layer_tolerance > 0:  # most layers rest once the tolerance is met: check when that is
            open_share = self.gap / tolerance if self.gap > tolerance else max(self.gaps.values()) / layer_tolerance
            self.needed = self.batches_seen * open_share

    def _next_check(self) -> int:
        """After how many batches to check again: where the estimate expects the end, at most after twice as many."""
        seen = self.batches_seen
        if seen < FIRST_CHECKS[-1]:
            return next(point for point in FIRST_CHECKS if point > seen)
        needed = max(math.ceil(self.needed), self.config.min_batches, seen + 1) if self.needed else 2 * seen
        return min(needed, 2 * seen)

    def _active(self) -> list[str]:
        return [leader for leader in self.moments if leader not in self.resting]

    def _renew(self) -> None:
        for leader in self._active():
            self.moments[leader].renew(self.spectra[leader])
            self.variation[leader].renew(self.spectra[leader], self.moments[leader])

    def _read(self, count: int) -> bool:
        """Read up to `count` batches on each process and merge; whether any process found one at the end."""
        more = True
        for _ in range(count):
            more = more and self.read()
        return self._merge(more)

    def _merge(self, more: bool) -> bool:
        """Add up what all processes have read since the last time."""
        flags = torch.tensor([self.reader.count, self.reader.count > 0, more], dtype=torch.float64, device=self.device)
        self.processes.sum([flags])
        batches, readers, alive = flags.tolist()
        if readers < self.processes.count:
            raise EvaError("the loader of batches is empty" + (" on some process" if readers else ""))
        active = sorted(self._active())  # each process may have reached them in another order
        if not self.processes.all_have(active):
            raise EvaError(
                "the batches of some processes reach other layers than those of the rest, as with experts; "
                "initialise with gather_distributed_inputs=False, on the same batches"
            )
        self.check_targets()
        if self.processes.count > 1:
            shifts = [self.moments[leader].shift.clone() for leader in active]
            self.processes.share_from_first(shifts)
            for leader, shift in zip(active, shifts, strict=True):
                self.moments[leader].move(shift)
            self.processes.sum([self.moments[leader].recent for leader in active])
            self.processes.sum([self.variation[leader].recent for leader in active])
        for leader in active:
            self.batches[leader] = self.batches.get(leader, 0) + int(batches) - self.batches_seen
            self.moments[leader].absorb()
            if not torch.isfinite(self.moments[leader].sums).all():
                raise EvaError(f"the inputs of layer '{leader}' contain NaN or infinite values")
        self.batches_seen = int(batches)
        return bool(alive)

    def _refine(self) -> None:
        """Read the same batches again, now that the sketch's test matrix is nearly right."""
        self.resting = set()
        self.tap.listen(set(self.moments))
        self._renew()
        for moments in self.moments.values():
            if isinstance(moments, SketchedMoments):
                moments.sums.zero_()
        self.refining = True
        count = self.reader.count
        self.reader.restart()
        self._read(count)
        if self.reader.count < count:
            raise EvaError("the second pass found fewer batches than the first; give a list or a callable")
        self.spectra = {leader: moments.spectrum() for leader, moments in self.moments.items()}
