"""From a command line to the specification of a run: two-pass composition. Never imports torch.

Hydra picks scale, task, method and model; which recipe (and which tuned values) belong to them depends on the task's
family, which only the composed task knows. So composition runs twice: once to learn scale, family and method, and once
with `recipe=<scale>/<family>` and, if there is one, `tuned=<scale>/<family>/<method>` in front of the user's own
overrides, which therefore win. A recipe or tuned file of the task itself (`<scale>/glue/cola`) goes before that of its
family (`<scale>/glue`).
"""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import ValidationError

from eva_bench.assets.identity import DataIdentity, data_identity, model_identity
from eva_bench.settings.checks import check_choices, check_target
from eva_bench.settings.explain import (
    check_added_and_removed,
    explain_hydra_error,
    explain_settings_error,
)
from eva_bench.settings.hydra_schema import register
from eva_bench.settings.schema import Settings, WhereSettings
from eva_bench.settings.spec import PROTOCOL, Identities, Origins, RunSpec
from eva_bench.system import paths
from eva_bench.system.errors import UserError, did_you_mean
from eva_bench.system.files import sha256_of

Choices = tuple[str, ...]
VALUE = re.compile(rf"({'|'.join(Settings.model_fields)})\.[\w.]+=")  # a value of a section, not a choice of one
HIDDEN = ("data.root", "model.path", "results_dir", "runs_dir")  # paths of a user's machine

register()


def compose_spec(overrides: Sequence[str]) -> RunSpec:
    """Compose and validate a run from command-line overrides.

    Raises:
        UserError: unknown option or key, wrong type, missing choice; one clear sentence.
    """
    return to_spec(compose_settings(overrides), overrides)


def compose_settings(overrides: Sequence[str], known: dict[Choices, DictConfig] | None = None) -> dict[str, Any]:
    """All settings as plain values, and which tuned file entered: what depends on conf/ and the overrides alone.

    Args:
        overrides: of the command line.
        known: what was composed for the same choices before, kept by the caller for sweeps over values.

    Raises:
        UserError: as compose_spec.
    """
    check_choices(overrides)
    scale, task, family, method = _names_in_files(overrides) or _names_by_hydra(overrides)
    selection_keys = (task, family)  # the more special one wins
    extra = []
    if not _chosen(overrides, "recipe"):
        recipe = _existing("recipe", [f"{scale}/{key}" for key in selection_keys])
        extra.append(f"recipe={recipe or f'{scale}/{family}'}")
    tuned = _existing("tuned", [f"{scale}/{key}/{method}" for key in selection_keys])
    if tuned and not _chosen(overrides, "tuned"):
        extra.append(f"tuned={tuned}")
    config = _with_values([*extra, *overrides], known)
    try:
        settings = _plain_values(config)
    except OmegaConfBaseException as error:
        raise UserError(explain_hydra_error(error, overrides)) from error
    if math.isnan(settings["train"]["lr"]) and not _chosen(overrides, "train.lr"):
        raise UserError(  # NaN in a tuned file: LoRA's rate, which the recipe has, would be unfit
            f"No learning rate of '{method}' is published for {family} at scale {scale}: choose one with suite=rates "
            "(docs/protocol.md), or give train.lr."
        )
    for group in ("task", "method"):
        check_target(group, settings[group])
    if not _chosen(overrides, "runs_dir") and settings["results_dir"]:
        settings["runs_dir"] = paths.runs_beside(settings["results_dir"])
    settings["method"] = {"name": method} | settings["method"]
    if settings["data"]["root"]:
        settings["data"]["source"] = "hub"
    return {"settings": settings, "tuned": [item.split("=", 1)[1] for item in extra if item.startswith("tuned=")]}


def _with_values(overrides: Sequence[str], known: dict[Choices, DictConfig] | None) -> DictConfig:
    """The settings of a composition. Where `known` has its choices, only values such as `train.lr=0.1` are put in.

    Composing takes Hydra a hundred times longer than putting in a value. What does not go this way, a mistake among
    it, is composed by Hydra as ever.
    """
    choices = tuple(item for item in overrides if not VALUE.match(item))
    if known is None or len(choices) == len(overrides) or any(item.startswith(("+", "~")) for item in choices):
        return _ours(_compose(overrides))
    try:
        if choices not in known:
            known[choices] = _ours(_compose(choices))
        config = copy.deepcopy(known[choices])
        for value in OverridesParser.create().parse_overrides([item for item in overrides if VALUE.match(item)]):
            OmegaConf.update(config, value.key_or_group, value.value(), merge=True)
    except (UserError, HydraException, OmegaConfBaseException):
        return _ours(_compose(overrides))
    return config


def _ours(config: DictConfig) -> DictConfig:
    """Our sections of what Hydra composed."""
    ours = OmegaConf.masked_copy(config, list(Settings.model_fields))
    if "pocket" not in ours.task:  # a task may lack a stand-in; recipes refer to it
        OmegaConf.update(ours, "task.pocket", None, force_add=True)
    OmegaConf.set_struct(ours, True)  # what is put in later must be known, too
    return ours


def _plain_values(ours: DictConfig) -> dict[str, Any]:
    """No config node travels further than this. Raises UserError where a value is missing."""
    try:
        settings = OmegaConf.to_container(ours, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException:
        if not (missing := sorted(OmegaConf.missing_keys(ours))):
            raise
        raise UserError(
            f"No value for {', '.join(missing)}: the recipe does not set it; give it on the command line."
        ) from None
    assert isinstance(settings, dict)
    return {str(name): value for name, value in settings.items()}


def _names_by_hydra(overrides: Sequence[str]) -> tuple[str, str, str, str]:
    """Scale, task, family and method of a composition without recipe; explains every mistake in it."""
    first = _compose(overrides)
    return first.scale.name, first.task.name, first.task.family, first.hydra.runtime.choices.method


def _names_in_files(overrides: Sequence[str]) -> tuple[str, str, str, str] | None:
    """The same where choices are plain and right: in half the time, which counts for suites of hundreds of cells."""
    chosen = dict(item.split("=", 1) for item in overrides if "=" in item)
    scale, task, method = chosen.get("scale", _default_scale()), chosen.get("task"), chosen.get("method")
    if any(key.lstrip("+~").split(".")[0] == "task" and key != "task" for key in chosen):
        return None
    if not all(_existing(group, [str(name)]) for group, name in (("scale", scale), ("task", task), ("method", method))):
        return None
    content = _content(paths.CONF / "task" / f"{task}.yaml")
    return scale, content["name"], content["family"], str(method)


def _default_scale() -> str:
    defaults = _content(paths.CONF / "config.yaml")["defaults"]
    return next(item["scale"] for item in defaults if isinstance(item, dict) and "scale" in item)


def _content(file: Path) -> dict[str, Any]:
    """A file of conf/, read once as long as it stays the same: a suite asks for every cell."""
    return _read(file, file.stat().st_mtime_ns)


@cache
def _read(file: Path, changed_ns: int) -> dict[str, Any]:
    return yaml.safe_load(file.read_text())


def _existing(group: str, names: Sequence[str]) -> str | None:
    return next((name for name in names if (paths.CONF / group / f"{name}.yaml").is_file()), None)


def _chosen(overrides: Sequence[str], group: str) -> bool:
    return any(item.split("=")[0] == group for item in overrides)


def _compose(overrides: Sequence[str]) -> DictConfig:
    check_added_and_removed(overrides)
    try:
        if GlobalHydra.instance().is_initialized():
            return compose("config", list(overrides), return_hydra_config=True)
        with initialize_config_dir(str(paths.CONF), version_base="1.3"):
            return compose("config", list(overrides), return_hydra_config=True)
    except Exception as error:
        raise UserError(explain_hydra_error(error, overrides)) from error


def to_settings(composed: dict[str, Any]) -> Settings:
    """Composed settings with their values checked; what they name need not be on this machine.

    Raises:
        UserError: a value that cannot work.
    """
    try:
        settings = Settings.model_validate(composed["settings"])
    except ValidationError as error:
        raise UserError(explain_settings_error(error)) from error
    _check_together(settings)
    return settings


def to_spec(composed: dict[str, Any], overrides: Sequence[str]) -> RunSpec:
    """The specification of composed settings: values checked, and model and data identified by their checksums.

    Raises:
        UserError: a value that cannot work, or a model or data set that is not on this machine.
    """
    settings = to_settings(composed)
    return RunSpec(
        protocol=PROTOCOL,
        identity=_identities(settings),
        where=WhereSettings(**{name: getattr(settings, name) for name in WhereSettings.model_fields}),
        origins=Origins(command_line=_without_paths(overrides), tuned=composed["tuned"]),
        **{name: value for name, value in settings if name not in WhereSettings.model_fields},
    )


def _check_together(settings: Settings) -> None:
    """What no single setting can know, and numbers whose bounds the class of a method or task knows."""
    for group, choice in (("method", settings.method), ("task", settings.task)):
        for name, value in choice.values.items():
            if isinstance(value, float) and not math.isfinite(value):
                raise UserError(f"{group}.{name}={value} must be a finite number.")
    if settings.data.rows is not None and settings.data.rows_seed is None:
        raise UserError(f"data.rows={settings.data.rows} needs data.rows_seed, the seed of the draw of these rows.")
    train = settings.train
    if train.steps is None and train.epochs is None:
        raise UserError("Give train.steps or train.epochs: how long should training be?")
    if train.batch_size % train.micro_batch_size:
        raise UserError(
            f"train.batch_size={train.batch_size} is not a multiple of train.micro_batch_size={train.micro_batch_size}."
        )


def _identities(settings: Settings) -> Identities:
    train_name, eval_name = dataset_names(settings)
    train_data, eval_data = (_data(name, settings) for name in (train_name, eval_name))
    if settings.task.harness:  # prompts and answer extraction change numbers too
        harness = settings.task.harness
        names = [harness] if isinstance(harness, str) else harness
        if unknown := [name for name in names if not (paths.HARNESS / f"{name}.yaml").is_file()]:
            known = sorted(path.stem for path in paths.HARNESS.glob("*.yaml"))
            raise UserError(
                f"Unknown task.harness '{unknown[0]}'.{did_you_mean(unknown[0], known)} Known: {', '.join(known)}."
            )
        digests = [sha256_of(paths.HARNESS / f"{name}.yaml") for name in names]
        eval_data = eval_data.model_copy(update={"harness_sha256": digests})
    return Identities(
        model=model_identity(settings.model, settings.runs_dir), train_data=train_data, eval_data=eval_data
    )


def dataset_names(settings: Settings) -> tuple[str, str]:
    """Manifest names of the training and the evaluation data. Raises UserError where there is no stand-in."""
    data, task = settings.data, settings.task
    if data.source == "hub":
        return data.train or task.dataset, task.dataset
    if task.pocket is None:
        raise UserError(
            f"Task '{task.name}' has no generated stand-in (`pocket` in conf/task/{task.name}.yaml): "
            "give its rows with data.root=<folder>, or take scale=lite or scale=paper."
        )
    if data.pocket_train is None:
        raise UserError("data.pocket_train is not set: with data.source=pocket it names the rows to train on.")
    return data.pocket_train, task.pocket


def _data(name: str, settings: Settings) -> DataIdentity:
    identity = data_identity(name, settings.data.root, settings.runs_dir)
    if identity.deviation and settings.data.official_sizes is not False:
        raise UserError(f"{identity.deviation} (data.official_sizes=false allows it).")
    return identity


def _without_paths(overrides: Sequence[str]) -> list[str]:
    """Records keep the user's overrides, but never a path of the user's machine."""
    return [re.sub(r"=.*", "=<path>", item) if item.split("=")[0] in HIDDEN else item for item in overrides]
