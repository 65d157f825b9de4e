"""Two pretrainings with different seeds: `python -m eva_bench.probes pretrainings second=<folder>`.

Their units have no common places, so that the straight path between them is high. Weight matching permutes the units
of the second to those of the first (Ainsworth et al., arXiv:2209.04836); Ito et al. (arXiv:2402.04051) say that it
helps by aligning the singular vectors of large singular values.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from statistics import mean

from eva_bench import models
from eva_bench.assets.catalogue import pretraining_data
from eva_bench.assets.identity import model_folder, model_identity
from eva_bench.models.bundle import ModelBundle
from eva_bench.models.linear import weight_matrix
from eva_bench.probes import forgetting
from eva_bench.probes.connectivity import POINTS, alignment, barrier, path, read_state, write_state
from eva_bench.probes.permutations import State, match, permute, wiring
from eva_bench.probes.result import Findings, ProbeResult
from eva_bench.probes.subjects import base_model
from eva_bench.settings.schema import DataSettings
from eva_bench.system.arguments import Arguments, parse
from eva_bench.system.errors import UserError
from eva_bench.system.progress import say


class PretrainingsArguments(Arguments):
    """Which models.

    Attributes:
        first: a language model of conf/model/, whose held-out pretraining data are known.
        second: folder of a checkpoint of the same architecture and tokenizer, pretrained with another seed.
        points: of a path.
        seed: of the order in which groups of units are matched.
        results_dir: where the result goes.
    """

    second: str
    first: str = "pocket_language"
    points: int = POINTS
    seed: int = 0
    results_dir: str = "results"


def main(arguments: Sequence[str]) -> int:
    """Measure, write and show.

    Raises:
        UserError: an unknown argument, no language model, or models of different shapes.
    """
    given, started = parse(PretrainingsArguments, arguments), time.perf_counter()
    model, dataset = base_model(given.first, []), pretraining_data(given.first)
    if model.kind != "language" or dataset is None:
        raise UserError(f"first={given.first} is no language model with held-out pretraining data.")
    other = model.model_copy(update={"path": given.second})
    one, two = (models.load(part, DataSettings(source="hub"), "cpu") for part in (model, other))
    findings = compare(one, two, dataset, model_folder(model), given)
    result = ProbeResult(
        probe="pretrainings",
        subjects=[given.first, Path(given.second).name],
        sha256=[model_identity(part, "runs").sha256 for part in (model, other)],
        settings={"points": given.points, "seed": given.seed},
        seconds=time.perf_counter() - started,
        summary=findings.summary,
        layers=findings.layers,
    )
    say(f"pretrainings of {' and '.join(result.subjects)}, {result.seconds:.1f} s: {result.write(given.results_dir)}")
    for name, value in result.summary.items():
        say(f"  {name:<32} {value:.4g}")
    return 0


def compare(one: ModelBundle, two: ModelBundle, dataset: str, folder: Path, options: PretrainingsArguments) -> Findings:
    """Path and barrier between two models as they are and matched, and the alignment of their singular vectors.

    Args:
        one: changed.
        two: of the same architecture.
        dataset: held-out pretraining data of the first.
        folder: of the first model's checkpoint.
        options: points and seed.

    Raises:
        UserError: the models have different shapes.
    """
    first, second = read_state(one.module), read_state(two.module)
    if {name: value.shape for name, value in first.items()} != {name: value.shape for name, value in second.items()}:
        raise UserError("The two pretrainings have weights of different shapes.")
    units = wiring(one.module)
    ways = {"straight": second, "permuted": permute(second, match(first, second, units, options.seed), units.axes)}

    def loss(state: State) -> float:
        write_state(one.module, state)
        return forgetting.measure(one, dataset, folder)[forgetting.LOSS]

    summary: dict[str, float | int | None] = {}
    layers: dict[str, dict[str, float | int | list[float]]] = {}
    for name, state in ways.items():
        losses = path(first, state, loss, options.points)
        layers[name] = {"loss": losses}
        write_state(two.module, state)
        write_state(one.module, first)
        aligned = [
            alignment(*(weight_matrix(bundle.module.get_submodule(target)).detach() for bundle in (one, two)))
            for target in one.targets
        ]
        summary |= {f"{name}_barrier": barrier(losses), f"{name}_alignment": mean(aligned)}
    return Findings(summary=summary, layers=layers)
