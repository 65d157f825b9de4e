"""The probes by name, and one of them on its subjects."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from eva_bench.probes import connectivity, curvature, geometry, intruders, low_rank, variation
from eva_bench.probes.result import Findings, ProbeResult
from eva_bench.probes.subjects import Subject
from eva_bench.system.arguments import Arguments

PROBES: dict[str, ModuleType] = {
    module.__name__.rpartition(".")[2]: module
    for module in (intruders, geometry, variation, low_rank, curvature, connectivity)
}


def measure(name: str, found: Sequence[Subject], options: Arguments, results_dir: str) -> tuple[Path, ProbeResult]:
    """Run a probe and write its file."""
    started, module = time.perf_counter(), PROBES[name]
    findings: Findings = module.probe(found if name == "connectivity" else found[0], options)
    spec = found[0].spec
    of_run = {} if spec is None else {"scale": spec.scale.name, "task": spec.task.name, "method": spec.method.name}
    result = ProbeResult(
        probe=name,
        subjects=[subject.name for subject in found],
        sha256=[subject.sha256 for subject in found],
        seed=None if spec is None else spec.seed,
        settings=options.model_dump(),
        seconds=time.perf_counter() - started,
        summary=findings.summary,
        layers=findings.layers,
        **of_run,
    )
    return result.write(results_dir), result
