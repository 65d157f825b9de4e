"""`make fetch TASK=gsm8k SCALE=lite`: what the runs of a task need, brought where there is network.

What no hub has (entries with `by_hand`) is not downloaded: it is told where it comes from, and what lies here is verified.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import yaml
from omegaconf import OmegaConf
from pydantic import Field

from eva_bench.assets.catalogue import entry
from eva_bench.assets.fetch import check_network, fetch_dataset, fetch_model, verify_dataset
from eva_bench.system import paths
from eva_bench.system.arguments import Arguments, run_command
from eva_bench.system.errors import UserError, did_you_mean
from eva_bench.system.paths import choices, tasks_of


class FetchArguments(Arguments):
    """Get data and models to data/, on a machine with network, so that runs need none.

    make fetch TASK=gsm8k SCALE=lite; make fetch MODEL=smollm2_135m; make fetch DATA=openai/gsm8k
    """

    task: str | None = Field(None, description="a task, or a folder of tasks: its data and its recipe's model")
    scale: str = Field("lite", description="pocket, lite or paper")
    model: str | None = Field(None, description="a model of conf/model/; with task= instead of its recipe's")
    data: str | None = Field(None, description="a data set of tasks/manifest/")


def fetch(arguments: FetchArguments) -> int:
    """Fetch what a task needs at a scale, or one model, or one data set. Raises UserError."""
    if not (arguments.task or arguments.model or arguments.data):
        raise UserError("What to fetch? make fetch TASK=gsm8k SCALE=lite, MODEL=smollm2_135m or DATA=openai/gsm8k.")
    datasets, models = needs(arguments.task, arguments.scale, arguments.model, arguments.data)
    if not datasets and not models:
        print("nothing to fetch: the pocket scale makes its own data and carries its models")
        return 0
    by_hand = [name for name in datasets if "by_hand" in entry(name)]
    for name in by_hand:
        verify_dataset(name)
    downloads = [name for name in datasets if name not in by_hand]
    if downloads or models:
        check_network()
    for name in downloads:
        fetch_dataset(name)
    for name in models:
        fetch_model(name)
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m eva_bench.run.fetch task=<task> [scale=...] | model=<model> | data=<data set>`."""
    return run_command(fetch, FetchArguments, arguments)


def needs(task: str | None = None, scale: str = "lite", model: str | None = None, data: str | None = None):
    """Manifest names of data sets and names of model configs that are wanted.

    Raises:
        UserError: unknown task, scale, model or data set.
    """
    datasets, models = [], []
    if task:
        _known("scale", scale)
        for name in tasks_of(task):
            _known("task", name)
            if scale != "pocket":
                more_data, of_recipe = _of_task(name, scale)
                datasets, models = datasets + more_data, [model or of_recipe]
    elif model:
        models = [model]
    if data:
        datasets.append(data)
    datasets = list(dict.fromkeys(part for name in datasets for part in entry(name).get("parts", [name])))
    for name in models:
        _known("model", name)
    return datasets, models


def _of_task(task: str, scale: str) -> tuple[list[str], str]:
    """Data sets of a task and the model of its recipe at a scale."""
    config = yaml.safe_load((paths.CONF / "task" / f"{task}.yaml").read_text())
    recipe_file = paths.CONF / "recipe" / scale / f"{config['family']}.yaml"
    if not recipe_file.exists():
        raise UserError(f"There is no recipe for task family '{config['family']}' at scale '{scale}'.")
    recipe = yaml.safe_load(recipe_file.read_text())
    train = OmegaConf.create({"task": config, "train": recipe["data"].get("train")}).train  # may name the task's rows
    return [train or config["dataset"], config["dataset"]], next(item["override /model"] for item in recipe["defaults"] if "override /model" in item)


def _known(group: str, name: str) -> None:
    if name not in choices(group):
        raise UserError(f"Unknown {group} '{name}'.{did_you_mean(name, choices(group))} Known: {', '.join(choices(group))}.")


if __name__ == "__main__":
    sys.exit(main())
