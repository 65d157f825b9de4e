"""Small, lite and paper scale from an empty clone: `make fetch` brings what the run beside it needs, on a stand-in hub.

By default every recipe and every loader has its turn; `-m hub` runs the other tasks at both scales.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml
from huggingface_hub import constants

from eva_bench.assets import catalogue, identity
from eva_bench.records.store import Store
from eva_bench.run import fetch
from eva_bench.run.cell import run_cell
from eva_bench.settings.compose import compose_settings, compose_spec, dataset_names, to_settings
from eva_bench.system import paths
from eva_bench.system.paths import choices, is_group, tasks_of
from pocket.datasets import metaworld as generator
from tasks.control import rollout
from tests.conftest import ROOT
from tests.hub import Hub, serving
from tests.hub_content import add_model, fill, write_archive

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "conf/recipe").rglob("*.yaml"))]
FETCH, RUN = re.compile(r"make fetch ([^\n&`#]+)"), re.compile(r"python run\.py ([^\n&`#]+)")
TASKS = [name for name in choices("task") if not is_group(name)]
CELLS = [(scale, name, "") for scale in ("lite", "paper") for name in TASKS]
CELLS += [
    ("paper", f"glue/{path.stem}", f"paper/glue_deberta/{path.stem}")
    for path in (ROOT / "conf/recipe/paper/glue_deberta").iterdir()
]
CELLS += [("small", name, "") for name in TASKS if name.startswith("glue/")]
CELLS += [("paper", "metaworld/push", "paper/metaworld_blocks"), ("paper", "math", "paper/math_70b")]
SHORT = [
    "train.epochs=null",
    "train.steps=2",
    "train.batch_size=4",
    "train.micro_batch_size=2",
    "calibration.batch_size=4",
    "adapter.rank=4",
    "eval.limit=2",
    "data.workers=0",
    "tracking=off",
    "threads=1",
]


def loader(name: str) -> str:
    info = catalogue.entry(name)
    return info.get("loader", "rows") + ("/own test" if "test" in info else "")


def recipe_of(scale: str, task: str, recipe: str) -> str:
    """Folder or name of the recipe of a cell: those of GLUE have a file for every task."""
    if recipe:
        return recipe.removesuffix(f"/{task.rpartition('/')[2]}")
    family = yaml.safe_load((ROOT / f"conf/task/{task}.yaml").read_text())["family"]
    own = (ROOT / f"conf/recipe/{scale}/{task}.yaml").exists()
    return f"{scale}/{task if own and family != 'glue' else family}"


def cells() -> list:
    """All cells; those that bring nothing new are marked."""
    seen, found = set(), []
    for scale, task, recipe in CELLS:
        dataset = yaml.safe_load((ROOT / f"conf/task/{task}.yaml").read_text())["dataset"]
        key = (recipe_of(scale, task, recipe), loader(dataset), task == "glue/qqp")
        marks = [pytest.mark.hub] if key in seen else []
        seen.add(key)
        found.append(pytest.param(scale, task, recipe, marks=marks, id=" ".join(filter(None, (scale, task, recipe)))))
    return found


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """The stand-in hub in place of the real one, an empty data folder, short episodes."""
    folder, hub = tmp_path_factory.mktemp("hub"), Hub()
    with pytest.MonkeyPatch.context() as patch, serving(hub):
        patch.setattr(constants, "ENDPOINT", hub.address)
        patch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.address + "/{repo_id}/resolve/{revision}/{filename}"
        )
        patch.setattr(constants, "HF_HUB_OFFLINE", False)
        patch.setattr(paths, "DATA", folder / "data")
        patch.setattr(generator, "FOLDER", folder / "demonstrations")
        patch.setattr(generator, "SIZES", {"train": 3, "validation": 2, "test": 2})
        patch.setattr(rollout, "STEPS", 20)
        entries = fill(hub, folder / "files")
        patch.setattr(catalogue, "manifest", lambda: entries)
        for cached in (generator.episodes, catalogue._generated, identity._generated_sha256):
            cached.cache_clear()
        yield hub, folder
    for cached in (generator.episodes, catalogue._generated, identity._generated_sha256):
        cached.cache_clear()


@pytest.mark.parametrize(("scale", "task", "recipe"), cells())
def test_what_fetch_brings_is_what_the_run_needs(scale, task, recipe, world, tmp_path):
    hub, folder = world
    chosen = [f"task={task}", f"scale={scale}", *([f"recipe={recipe}"] if recipe else [])]
    wanted = fetch.needs(fetch.FetchArguments(**dict(item.split("=") for item in chosen)))
    for name in wanted.models:
        if not (folder / "made" / name).exists():
            add_model(hub, name, folder / "made")
            (folder / "made" / name).mkdir(parents=True, exist_ok=True)
    if task.startswith("vtab1k/") and not (folder / "archives" / task).exists():
        write_archive(task.partition("/")[2])
        (folder / "archives" / task).mkdir(parents=True)

    assert fetch.main(chosen) == 0
    asked = len(hub.sent)
    short = [*SHORT, "eval.max_new_tokens=8"] if task in ("gsm8k", "math") else SHORT
    images = ["data.image_size=28"] if task.startswith("vtab1k/") else []
    drawn = ["data.rows=8"] if scale == "small" else []
    runs = folder / "runs"
    spec = compose_spec(
        ["method=lora", *chosen, *short, *images, *drawn, f"results_dir={tmp_path}", f"runs_dir={runs}"]
    )
    assert run_cell(spec) == 0

    record = Store(tmp_path).read(spec)
    assert record.status == "ok" and record.steps == 2 and record.metrics["samples"] == 2
    assert record.spec.task.primary in record.metrics
    assert len(hub.sent) == asked  # a run never downloads


def pairs() -> list[tuple[list[str], list[str]]]:
    """What every line fetches and runs, where it does both."""
    lines = [line for page in PAGES for line in page.read_text(encoding="utf-8").splitlines()]
    found = [(FETCH.findall(line), RUN.findall(line)) for line in lines]
    found = [pair for pair in found if all(pair)]
    assert len(found) >= 11
    return found


@pytest.mark.parametrize(("fetches", "runs"), pairs(), ids=lambda lines: " ".join(lines))
def test_a_line_fetches_what_it_runs(fetches, runs):
    datasets, models = set(), set()
    for line in fetches:
        options = {key.lower(): value for key, value in (word.split("=", 1) for word in shlex.split(line))}
        brought = fetch.needs(fetch.FetchArguments(**options))
        datasets, models = datasets | set(brought.datasets), models | set(brought.models)
    for line in runs:
        overrides = dict(word.split("=", 1) for word in shlex.split(line))
        for task in tasks_of(overrides["task"]):
            needed = to_settings(
                compose_settings([f"{key}={value}" for key, value in (overrides | {"task": task}).items()])
            )
            parts = {part for name in dataset_names(needed) for part in catalogue.entry(name).get("parts", [name])}
            assert {part for part in parts if "generator" not in catalogue.entry(part)} <= datasets
            assert needed.model.name in models


def test_the_table_of_the_docs_has_a_tick_for_every_cell():
    from tests import matrix

    every = {" ".join(filter(None, cell)): True for cell in CELLS}
    assert matrix.PAGE.read_text(encoding="utf-8") == matrix.page(every)


def test_the_hub_is_on_loopback_only(world):
    assert world[0].address.startswith("http://127.0.0.1:") and isinstance(world[1], Path)
