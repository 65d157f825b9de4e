"""The specification: what enters a fingerprint, and what never does."""

from __future__ import annotations

import copy
import os
import random
import re
import subprocess
import sys

import pytest

from eva_bench.settings import compose as compose_module
from eva_bench.settings.compose import compose_spec
from eva_bench.settings.spec import RunSpec, fingerprint, stream_seed
from eva_bench.sweeps import plan
from eva_bench.system.errors import UserError
from tests.checkpoints import write_checkpoint
from tests.conftest import ROOT


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> list[str]:
    folder = tmp_path_factory.mktemp("spec")
    write_checkpoint("smollm2_135m", folder / "model")
    return ["method=lora", "task=gsm8k", f"model.path={folder / 'model'}", f"runs_dir={folder / 'runs'}"]


@pytest.fixture(scope="module")
def spec(base) -> RunSpec:
    return compose_spec(base)


def leaves(value, path=()):
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from leaves(item, (*path, key))
    else:
        yield path, value


OTHER = {  # choices and lists
    "kind": "vision",
    "source": "hub",
    "too_long": "drop",
    "dtype": "bfloat16",
    "precision": "bf16",
    "schedule": "linear",
    "scaling": "rslora",
    "magnitude": True,
    "decay_all_factors": True,
    "stage": "tune",
    "targets": ["x"],
    "harness_sha256": ["x"],
    "official_sizes": True,
    "as_pinned": True,
}


def changed(spec: RunSpec, path: tuple) -> RunSpec:
    values = copy.deepcopy(spec.what())
    place = values
    for key in path[:-1]:
        place = place[key]
    old = place[path[-1]]
    if isinstance(old, bool):
        new = not old
    elif isinstance(old, (int, float)):
        new = old + 1 if path[-1] != "warmup_ratio" else old / 2
    else:
        texts = {"hub_id", "revision", "normalisation", "deviation", "train", "pocket_train"}
        new = OTHER.get(path[-1], f"{old}?" if isinstance(old, str) or path[-1] in texts else 3)
    place[path[-1]] = new
    return RunSpec.model_validate(values)


# The name of the folder that holds the weights is not numbers' business.
WITHOUT_EFFECT = {("identity", "model", "checkpoint")}


def test_every_value_that_can_change_a_number_changes_the_run(spec):
    paths = [path for path, _ in leaves(spec.what())]
    assert len(paths) > 50
    for path in paths:
        assert (changed(spec, path).run_id != spec.run_id) == (path not in WITHOUT_EFFECT), path


def test_model_data_method_and_seed_change_the_initialisation_but_training_and_evaluation_do_not(spec):
    for path, _ in leaves(spec.what()):
        if path[0] in ("model", "data", "method", "adapter", "calibration", "seed", "stage", "protocol"):
            assert changed(spec, path).init_id != spec.init_id, path
        if path[0] == "eval" and path[1] != "every_epoch":
            assert changed(spec, path).train_id == spec.train_id, path
        if path[0] == "train" and path[1] != "loss_on_prompt":
            assert changed(spec, path).init_id == spec.init_id and changed(spec, path).train_id != spec.train_id


def test_a_training_that_is_scored_on_its_way_belongs_to_what_it_is_scored_on(spec):
    on_its_way = changed(spec, ("eval", "every_epoch"))
    assert changed(on_its_way, ("eval", "batch_size")).train_id != on_its_way.train_id != spec.train_id


def test_a_new_optional_setting_that_is_null_leaves_old_fingerprints_as_they_are():
    assert fingerprint({"a": 1, "b": {"c": None}}) == fingerprint({"a": 1, "b": {}})
    assert fingerprint({"a": [None]}) != fingerprint({"a": []})


def test_where_things_lie_changes_nothing(base, spec, tmp_path):
    write_checkpoint("smollm2_135m", tmp_path / "other_name")
    moved = compose_spec(
        [*base, f"model.path={tmp_path / 'other_name'}", f"results_dir={tmp_path / 'r'}", f"runs_dir={tmp_path / 'x'}",
         "threads=1", "wait=false", "force=true", "tracking=off", "train.checkpoint_minutes=1"]
    )  # fmt: skip
    assert (moved.run_id, moved.train_id, moved.init_id) == (spec.run_id, spec.train_id, spec.init_id)


def test_other_weights_tokenizer_or_generation_settings_are_another_run(base, spec, tmp_path):
    ids = {spec.run_id}
    for number, (file, old, new) in enumerate(
        [("config.json", '"rms_norm_eps": 1e-06', '"rms_norm_eps": 1e-05'), ("tokenizer_config.json", "1024", "1000"),
         ("generation_config.json", "{", '{"repetition_penalty": 1.5,')]
    ):  # fmt: skip
        folder = write_checkpoint("smollm2_135m", tmp_path / str(number))
        text = (folder / file).read_text()
        assert old in text
        (folder / file).write_text(text.replace(old, new, 1))
        ids.add(compose_spec([*base, f"model.path={folder}"]).run_id)
    assert len(ids) == 4


def test_order_of_keys_and_spelling_of_numbers_do_not_matter(base, spec):
    def shuffled(value):
        if not isinstance(value, dict):
            return value
        keys = list(value)
        random.Random(1).shuffle(keys)
        return {key: shuffled(value[key]) for key in keys}

    assert RunSpec.model_validate(shuffled(spec.what())).run_id == spec.run_id
    assert fingerprint({"a": 1, "b": [1.0, 2.5]}) == fingerprint({"b": [1, 2.5], "a": 1.0})
    assert fingerprint({"a": 1}) != fingerprint({"a": "1"}) != fingerprint({"a": None})
    assert fingerprint({"a": True}) != fingerprint({"a": "true"})
    spellings = ("train.lr=1e-3", "train.lr=0.001", "train.lr=1.0e-3")
    assert len({compose_spec([*base, spelling]).run_id for spelling in spellings}) == 1
    assert compose_spec([*base, "adapter.alpha=8"]).run_id == compose_spec([*base, "adapter.alpha=8.0"]).run_id
    assert compose_spec([*base, "seed=3", "train.lr=1"]).run_id == compose_spec([*base, "train.lr=1", "seed=3"]).run_id


def test_same_fingerprint_in_another_process_without_torch(base, spec):
    code = (
        "import sys; from eva_bench.settings.compose import compose_spec; "
        f"print(compose_spec({base!r}).run_id, 'torch' in sys.modules)"
    )
    environment = os.environ | {"PYTHONHASHSEED": "7"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [spec.run_id, "False"]


def test_json_round_trip(spec):
    again = RunSpec.from_json(spec.to_json())
    assert again == spec and again.run_id == spec.run_id and again.to_json() == spec.to_json()


def test_nan_has_no_fingerprint():
    with pytest.raises(ValueError):
        fingerprint({"lr": float("nan")})


def test_the_command_line_wins_over_tuned_values_and_recipe(base):
    overrides = [*base[:3], "scale=pocket", "train.lr=0.5"]
    spec = compose_spec(overrides)
    assert spec.train.lr == 0.5 and "train.lr=0.5" in spec.origins.command_line
    assert "model.path=<path>" in spec.origins.command_line
    assert str(base[2].split("=")[1]) not in str(spec.origins)


def test_a_spec_is_plain_python_and_names_its_run(spec):
    assert spec.run_id.startswith("gsm8k-lora-pocket-s0-")
    assert all(type(value) in (str, int, float, bool, list, dict, type(None)) for _, value in leaves(spec.what()))


def test_streams_of_a_seed_are_stable_and_differ():
    assert stream_seed(0, "data_order/0") == 181374507180031  # another value would change every run
    seeds = {
        stream_seed(seed, name)
        for seed in range(50)
        for name in ("data_order/0", "data_order/1", "initialisation", "dropout")
    }
    assert len(seeds) == 200 and all(0 <= seed < 2**48 for seed in seeds)


def test_missing_choices_are_refused():
    with pytest.raises(UserError, match="method=<name>"):
        compose_spec(["task=gsm8k"])


@pytest.mark.parametrize(
    "extra",
    [[], ["scale=lite"], ["task=glue/cola", "scale=paper"], ["task=math", "task.primary=unanswered"], ["train.lr=1"]],
)
def test_the_short_way_to_the_recipe_is_the_long_way(extra, monkeypatch):
    overrides = ["method=eva", "task=gsm8k", *extra]
    if "task=glue/cola" in extra or "task=math" in extra:
        overrides.remove("task=gsm8k")
    short = compose_module.compose_settings(overrides)
    monkeypatch.setattr(compose_module, "_names_in_files", lambda overrides: None)
    assert compose_module.compose_settings(overrides) == short


@pytest.mark.parametrize("suite", ["rates", "rank", "scaling", "decay"])
def test_values_put_into_known_choices_give_what_hydra_composes(suite):
    grids = [plan._axes(plan._as_overrides(grid)) for grid in plan.read_suite(suite)["grids"]]
    lines = [line for grid in grids for line in plan._combinations(grid)]
    known: dict = {}
    for line in random.Random(0).sample(lines, min(12, len(lines))):
        overrides = [*line, "train.weight_decay=0.1", "data.root=null"]
        assert compose_module.compose_settings(overrides, known) == compose_module.compose_settings(overrides)
    assert known


@pytest.mark.parametrize("mistake", ["train.lrr=1", "train.lr=abc", "adapter.rank=2.5", "method.x=1", "data.root.x=1"])
def test_a_mistake_in_a_value_is_explained_alike_where_the_choices_are_known(mistake):
    known: dict = {}
    compose_module.compose_settings(["task=gsm8k", "method=lora", "train.lr=1"], known)
    sentences = set()
    for choices in (known, None):
        with pytest.raises(UserError, match=re.escape(mistake.split("=")[0])) as error:
            compose_module.compose_settings(["task=gsm8k", "method=lora", mistake], choices)
        sentences.add(str(error.value))
    assert len(sentences) == 1
