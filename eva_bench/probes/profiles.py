"""How low the rank of pretrained weights is: `python -m eva_bench.probes profiles models=pocket_language,minilm_l6`.

WeLore's measure (arXiv:2407.11239) and others of `eva_bench.probes.low_rank`, for every layer that methods adapt.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from eva_bench import models
from eva_bench.assets.identity import model_identity
from eva_bench.models.linear import weight_matrix
from eva_bench.probes.low_rank import WELORE, low_rank_layers, profile
from eva_bench.probes.result import Findings, ProbeResult, mean_of, show
from eva_bench.probes.subjects import base_model
from eva_bench.settings.schema import DataSettings, ModelSettings
from eva_bench.system.arguments import Arguments, parse
from eva_bench.system.errors import UserError
from eva_bench.system.paths import choices

PROBE = "profiles"
REDUCTION = 0.5


class ProfilesArguments(Arguments):
    """Which models.

    Attributes:
        models: names of conf/model/, with commas between them; default: all pocket models.
        path: of a single model, the folder of its checkpoint.
        results_dir: where the results go.
    """

    models: str = ""
    path: str | None = None
    results_dir: str = "results"


def main(arguments: Sequence[str]) -> int:
    """Measure, write and show.

    Raises:
        UserError: an unknown argument or model, one that is not on this machine, or one path for several models.
    """
    given = parse(ProfilesArguments, arguments)
    names = given.models.split(",") if given.models else [m for m in choices("model") if m.startswith("pocket_")]
    if given.path and len(names) > 1:
        raise UserError("path= is the folder of one model: give it with models=<name>.")
    for name in names:
        started, model = time.perf_counter(), base_model(name, [])
        if given.path:
            model = model.model_copy(update={"path": given.path})
        findings = profiles(model)
        result = ProbeResult(
            probe=PROBE,
            subjects=[name],
            sha256=[model_identity(model, "runs").sha256],
            settings={"reduction": REDUCTION},
            seconds=time.perf_counter() - started,
            summary=findings.summary,
            layers=findings.layers,
        )
        show(result.write(given.results_dir), result)
    return 0


def profiles(model: ModelSettings) -> Findings:
    """Rank measures of every layer of an untouched model that methods adapt, and their means."""
    outputs = 1 if model.kind in ("classifier", "vision") else None
    bundle = models.load(model, DataSettings(source="hub"), "cpu", outputs)
    weights = {name: weight_matrix(bundle.module.get_submodule(name)).detach().float() for name in bundle.targets}
    layers = {name: profile(weight, WELORE[REDUCTION]) for name, weight in weights.items()}
    for name, weight in weights.items():
        layers[name]["full_rank"] = min(weight.shape)
    low = low_rank_layers({name: row["share"] for name, row in layers.items()})
    means = mean_of(layers, "share", "stable_rank", "energy_rank", "full_rank")
    return Findings(summary={"layers": len(layers), "low_rank_layers": len(low)} | means, layers=layers)
