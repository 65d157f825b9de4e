"""What every task must hold; finds every YAML below conf/task by itself."""

from __future__ import annotations

import importlib
import json
from functools import cache

import pytest

from eva_bench.assets.catalogue import entry
from eva_bench.settings.build import build
from eva_bench.settings.compose import compose_spec
from eva_bench.settings.schema import TaskChoice
from eva_bench.task import Task, split_rows
from tests.conftest import CONF

NAMES = sorted(str(path.relative_to(CONF / "task").with_suffix("")) for path in (CONF / "task").rglob("*.yaml"))


@cache
def values(name: str) -> TaskChoice:
    """The task section as a pocket run gets it."""
    return compose_spec(["method=lora", f"task={name}"]).task


@pytest.mark.parametrize("name", NAMES)
def test_it_is_built_and_has_recipes_and_sources(name):
    task = build(values(name), Task)
    assert task.name == name
    for scale in ("pocket", "lite", "paper"):
        own, family = (CONF / "recipe" / scale / f"{part}.yaml" for part in (name, task.family))
        assert own.exists() or family.exists(), f"no recipe for {name} at scale {scale}"
    for source in (task.dataset, task.pocket):
        for part in entry(source).get("parts", [source]):
            assert entry(part).get("licence") or entry(part).get("by_hand"), f"whose licence has {part}?"
    assert "generator" in entry(task.pocket), "the pocket stand-in is made here"


@pytest.mark.parametrize("name", NAMES)
def test_rows_of_the_stand_in_are_in_one_split_only_and_the_same_every_time(name):
    info = entry(values(name).pocket)
    module, subset = importlib.import_module(info["generator"]), [info["subset"]] if "subset" in info else []
    assert module.fingerprint(*subset) == module.fingerprint(*subset) and len(module.fingerprint(*subset)) == 64
    if values(name).family in ("vtab1k", "metaworld"):
        return  # images and trajectories: seconds a split; their own tests compare them
    with pytest.raises(ValueError, match="split"):
        module.generate("tset", *subset)
    splits = {
        split: [_content(row) for row in module.generate(split, *subset)] for split in ("train", "validation", "test")
    }
    assert all(splits.values()) and splits["test"] == [_content(row) for row in module.generate("test", *subset)]
    for one, other in (("train", "validation"), ("train", "test"), ("validation", "test")):
        assert not set(splits[one]) & set(splits[other]), f"{one} and {other} share rows"
    anew = [_content(row) for row in module.generate("test", *subset, draw=7)]
    assert len(anew) == len(splits["test"]) and anew != splits["test"]
    assert anew == [_content(row) for row in module.generate("test", *subset, draw=7)]
    assert not set(anew) & {*splits["train"], *splits["validation"]}


@pytest.mark.parametrize("stage", ["final", "tune"])
def test_every_seed_is_evaluated_on_rows_of_its_own_and_every_method_on_the_same(stage):
    def rows(method, seed):
        line = ["task=glue/cola", f"method={method}", f"seed={seed}", f"stage={stage}"]
        train, held_out = split_rows(compose_spec(line))
        return [_content(row) for row in train.rows], [_content(row) for row in held_out.rows]

    (train, first), (_, same), (again, second) = rows("lora", 0), rows("full", 0), rows("lora", 1)
    assert first == same != second and train == again


def _content(row: dict) -> str:
    return json.dumps({key: value for key, value in row.items() if key not in ("idx", "id")}, sort_keys=True)
