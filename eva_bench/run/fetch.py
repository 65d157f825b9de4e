"""`make fetch TASK=gsm8k SCALE=lite`: what the runs of a task need, brought where there is network.

The settings of the run say what that is: they are composed as for the run itself. What no hub has is told where it
comes from: data of an entry with `by_hand` is verified here, and weights that nobody published have to be made.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

import yaml
from pydantic import Field, ValidationError

from eva_bench.assets.catalogue import entry, pretraining_data
from eva_bench.assets.fetch import check_network, fetch_dataset, fetch_model, verify_dataset
from eva_bench.settings.compose import compose_settings, dataset_names, to_settings
from eva_bench.settings.explain import explain_settings_error
from eva_bench.settings.schema import ModelSettings
from eva_bench.system import paths
from eva_bench.system.arguments import Arguments, run_command
from eva_bench.system.errors import UserError, did_you_mean
from eva_bench.system.paths import choices, tasks_of


class FetchArguments(Arguments):
    """Get data and models to data/, on a machine with network, so that runs need none.

    make fetch TASK=gsm8k SCALE=lite; make fetch MODEL=smollm2_135m; make fetch DATA=openai/gsm8k
    """

    task: str | None = Field(None, description="a task, or a folder of tasks: what its runs need")
    scale: str = Field("lite", description="pocket, small, lite or paper")
    recipe: str | None = Field(None, description="another recipe of conf/recipe/ for the task")
    model: str | None = Field(None, description="a model of conf/model/; with task= instead of its recipe's")
    data: str | None = Field(None, description="a data set of tasks/manifest/")


@dataclass
class Needs:
    """Data sets by their names in tasks/manifest/, without generated ones; models by their names in conf/model/."""

    datasets: list[str] = field(default_factory=list)
    models: dict[str, ModelSettings] = field(default_factory=dict)


def fetch(arguments: FetchArguments) -> int:
    """Fetch what a task needs at a scale, or one model, or one data set. Raises UserError."""
    wanted = needs(arguments)
    downloads = [name for name in wanted.datasets if "by_hand" not in entry(name)]
    hub_models = [model for model in wanted.models.values() if model.hub_id]
    if not wanted.datasets and not hub_models:
        print("nothing to fetch: the pocket scale makes its own data and carries its models")
        return 0
    for name in wanted.datasets:
        if name not in downloads:
            verify_dataset(name)
    if downloads or any(model.revision for model in hub_models):
        check_network()
    for name in downloads:
        fetch_dataset(name)
    for model in sorted(hub_models, key=lambda model: model.revision is None):  # what has to be made comes last
        fetch_model(model)
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m eva_bench.run.fetch task=<task> [scale=...] | model=<model> | data=<data set>`."""
    return run_command(fetch, FetchArguments, arguments)


def needs(wanted: FetchArguments) -> Needs:
    """Data sets and models that are named, or that the runs of a task need.

    Raises:
        UserError: nothing asked for, unknown task, scale, model or data set, or settings that cannot work.
    """
    found = Needs()
    if not (wanted.task or wanted.model or wanted.data):
        raise UserError("What to fetch? make fetch TASK=gsm8k SCALE=lite, MODEL=smollm2_135m or DATA=openai/gsm8k.")
    if wanted.task:
        _known("scale", wanted.scale)
        for task in tasks_of(wanted.task):
            _known("task", task)
            _add_run(found, task, wanted)
    elif wanted.model:
        _known("model", wanted.model)
        found.models[wanted.model] = _model(wanted.model)
    if wanted.data:
        found.datasets.append(wanted.data)
    held_out = [pretraining_data(name) for name in found.models]  # which forgetting is measured on
    found.datasets += [name for name in held_out if name is not None]
    names = dict.fromkeys(part for name in found.datasets for part in entry(name).get("parts", [name]))
    found.datasets = [name for name in names if "generator" not in entry(name)]
    return found


def _add_run(found: Needs, task: str, wanted: FetchArguments) -> None:
    """What one run needs: the data sets and the model of its composed settings."""
    options = {"method": "lora", "task": task, "scale": wanted.scale, "recipe": wanted.recipe, "model": wanted.model}
    overrides = [f"{key}={value}" for key, value in options.items() if value]
    settings = to_settings(compose_settings(overrides))
    found.datasets += dataset_names(settings)
    if settings.model.path is None:
        found.models[settings.model.name] = settings.model


def _model(name: str) -> ModelSettings:
    try:
        return ModelSettings.model_validate(yaml.safe_load((paths.CONF / "model" / f"{name}.yaml").read_text()))
    except ValidationError as error:
        raise UserError(explain_settings_error(error)) from error


def _known(group: str, name: str) -> None:
    if name not in choices(group):
        raise UserError(
            f"Unknown {group} '{name}'.{did_you_mean(name, choices(group))} Known: {', '.join(choices(group))}."
        )


if __name__ == "__main__":
    sys.exit(main())
