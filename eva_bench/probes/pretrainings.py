"""Pretrainings with different seeds: `python -m eva_bench.probes pretrainings others=<folder>[,<folder>...]`.

Their units have no common places, so that the straight path between them is high. Weight matching permutes the units
of one to those of another (Ainsworth et al., arXiv:2209.04836); Ito et al. (arXiv:2402.04051) say that it helps by
aligning the singular vectors of large singular values, and compare it with permutations that the straight-through
estimator finds by the loss.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import mean

from torch import Tensor, nn

from eva_bench import models
from eva_bench.assets.catalogue import entry, load_rows, pretraining_data
from eva_bench.assets.identity import model_folder, model_identity
from eva_bench.models.batches import IGNORED_LABEL
from eva_bench.models.bundle import ModelBundle
from eva_bench.models.linear import weight_matrix
from eva_bench.models.sharding import inference
from eva_bench.probes import forgetting
from eva_bench.probes.connectivity import (
    POINTS,
    alignment,
    barrier,
    merge,
    path,
    read_state,
    straight_through,
    write_state,
)  # fmt: skip
from eva_bench.probes.permutations import State, Wiring, match, permute, wiring
from eva_bench.probes.result import Findings, ProbeResult, Summary, show
from eva_bench.probes.subjects import base_model
from eva_bench.settings.schema import DataSettings, ModelSettings
from eva_bench.system.arguments import Arguments, parse
from eva_bench.system.errors import UserError
from eva_bench.system.paths import ROOT

PROBE = "pretrainings"
READOUTS = "readouts.npz"  # of another vision transformer, in its folder
ROWS = 64  # of what pretraining read, for the straight-through estimator


class PretrainingsArguments(Arguments):
    """Which models.

    Attributes:
        first: a language or vision model of conf/model/, whose held-out pretraining data are known.
        others: folders of checkpoints of the same architecture and tokenizer, pretrained with other seeds.
        points: of a path.
        steps, lr: of the straight-through estimator; no steps, no estimator.
        seed: of the order in which groups of units are matched.
        results_dir: where the result goes.
    """

    others: str
    first: str = "pocket_language"
    points: int = POINTS
    steps: int = 0
    lr: float = 0.01
    seed: int = 0
    results_dir: str = "results"


def main(arguments: Sequence[str]) -> int:
    """Measure, write and show.

    Raises:
        UserError: an unknown argument, a model of another kind, or models of different shapes.
    """
    given, started = parse(PretrainingsArguments, arguments), time.perf_counter()
    model, dataset = base_model(given.first, []), pretraining_data(given.first)
    if model.kind not in ("language", "vision") or dataset is None:
        raise UserError(f"first={given.first} is no language or vision model with held-out pretraining data.")
    folders = [Path(folder) for folder in given.others.split(",")]
    parts = [model, *(model.model_copy(update={"path": str(folder)}) for folder in folders)]
    own = model_folder(model)
    files = [ROOT / str(entry(dataset).get("readouts", "")), *(folder / READOUTS for folder in folders)]
    bundles = [load(part, file) for part, file in zip(parts, files, strict=True)]
    findings = compare(bundles, dataset, own, given)
    result = ProbeResult(
        probe=PROBE,
        subjects=[given.first, *(folder.name for folder in folders)],
        sha256=[model_identity(part, "runs").sha256 for part in parts],
        settings=given.model_dump(exclude={"first", "others", "results_dir"}),
        seconds=time.perf_counter() - started,
        summary=findings.summary,
        layers=findings.layers,
    )
    show(result.write(given.results_dir), result)
    return 0


def load(model: ModelSettings, readouts: Path) -> ModelBundle:
    """A pretrained model with all that its loss needs; readouts become layers of a vision transformer.

    Raises:
        UserError: there are no readouts.
    """
    if model.kind == "language":
        return models.load(model, DataSettings(source="hub"), "cpu")
    if not readouts.is_file():
        command = f"python -m pocket.pretrain.held_out --model {readouts.parent}"
        raise UserError(f"'{readouts.parent}' has no {READOUTS}, which `{command}` fits.")
    bundle = models.load(model, DataSettings(source="hub"), "cpu", 1)
    bundle.module.head = nn.Identity()  # the new head of a task: no part of pretraining
    weights = forgetting.read_readouts(readouts)
    for name in ("present", "ground"):
        layer = nn.Linear(*weights[f"{name}.weight"].shape[::-1])
        layer.load_state_dict({kind: weights[f"{name}.{kind}"] for kind in ("weight", "bias")})
        bundle.module.add_module(f"readout_{name}", layer)
    return bundle


def loss_on(bundle: ModelBundle, rows: forgetting.Rows) -> Tensor:
    """What pretraining minimised, on rows of its kind, with gradients where they are on."""
    if bundle.kind == "vision":
        layers = ((name, bundle.module.get_submodule(f"readout_{name}")) for name in ("present", "ground"))
        readouts = {f"{name}.{kind}": getattr(layer, kind) for name, layer in layers for kind in ("weight", "bias")}
        return forgetting.scenes(bundle, rows, readouts)["loss"]
    batch = bundle.processor([row["text"] for row in rows], padding=True, return_tensors="pt")
    labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, IGNORED_LABEL)
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    return bundle.module(**inputs, labels=labels, use_cache=False).loss


def compare(bundles: Sequence[ModelBundle], dataset: str, folder: Path, options: PretrainingsArguments) -> Findings:
    """Paths and barriers between models as they are and matched, the alignment of their singular vectors, merging.

    A barrier and an alignment are means over all pairs; `merged` is the loss of the mean of three models or more,
    `alone` their mean loss.

    Args:
        bundles: of one architecture; the first is changed.
        dataset: held-out pretraining data of the first.
        folder: of the first model's checkpoint.
        options: points, seed, and those of the straight-through estimator, which takes the first pair.

    Raises:
        UserError: the models have different shapes.
    """
    one, states = bundles[0], [read_state(bundle.module) for bundle in bundles]
    shapes = [{name: value.shape for name, value in state.items()} for state in states]
    if shapes.count(shapes[0]) < len(shapes):
        raise UserError("The pretrainings have weights of different shapes.")
    units, held_out = wiring(one.module), load_rows(dataset, "test")

    def loss(state: State) -> float:
        write_state(one.module, state)
        if one.kind == "language":  # in batches of similar length
            return forgetting.measure(one, dataset, folder)[forgetting.LOSS]
        with inference(one.module):
            return float(loss_on(one, held_out))

    layers: dict[str, dict[str, float | int | list[float]]] = {}
    found: dict[str, list[float]] = {}

    def look(way: str, pair: str, first: State, second: State) -> None:
        losses = path(first, second, loss, options.points)
        values = {"barrier": barrier(losses), "alignment": aligned(one, first, second)}
        layers[f"{way}/{pair}"] = {"loss": losses, **values}
        for name, value in values.items():
            found.setdefault(f"{way}_{name}", []).append(value)

    for i, j in itertools.combinations(range(len(states)), 2):
        moved = matched(states[i], states[j], units, options.seed)
        look("straight", f"{i}-{j}", states[i], states[j])
        look("permuted", f"{i}-{j}", states[i], moved)
    if options.steps:
        moved = _by_loss(one, states[:2], units, load_rows(dataset, "train")[:ROWS], options)
        look("straight_through", "0-1", states[0], moved)
    summary: Summary = {name: mean(values) for name, values in found.items()}
    summary["alone"] = mean(loss(state) for state in states)
    if len(states) > 2:
        others = [matched(states[0], state, units, options.seed) for state in states[1:]]
        summary |= {"straight_merged": loss(merge(states)), "permuted_merged": loss(merge([states[0], *others]))}
    return Findings(summary=summary, layers=layers)


def matched(first: State, second: State, units: Wiring, seed: int) -> State:
    """The second with its units in the places that bring its weights nearest to the first's."""
    return permute(second, match(first, second, units, seed), units.axes)


def aligned(bundle: ModelBundle, first: State, second: State) -> float:
    """Alignment of singular vectors, mean over the layers that methods adapt."""
    weights = []
    for state in (first, second):
        write_state(bundle.module, state)
        weights.append([weight_matrix(bundle.module.get_submodule(t)).detach().clone() for t in bundle.targets])
    return mean(alignment(*pair) for pair in zip(*weights, strict=True))


def _by_loss(
    bundle: ModelBundle, states: Sequence[State], units: Wiring, rows: forgetting.Rows, options: PretrainingsArguments
) -> State:
    """The second with its units where the straight-through estimator puts them."""
    first, second = states

    def loss() -> Tensor:
        return loss_on(bundle, rows)

    how = {"steps": options.steps, "lr": options.lr, "seed": options.seed}
    found, _ = straight_through(first, second, units, bundle.module, loss, **how)
    return permute(second, found, units.axes)
