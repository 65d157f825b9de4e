"""The specification of a run: two-pass composition and fingerprints. Never imports torch.

Hydra picks scale, task, method and model; which recipe (and which tuned values) belong to them depends on
the task's family, which only the composed task knows. So composition runs twice: once to learn scale,
family and method, and once with `recipe=<scale>/<family>` and, if there is one,
`tuned=<scale>/<family>/<method>` in front of the user's own overrides, which therefore win. A recipe or
tuned file of the task itself (`<scale>/glue/cola`) goes before that of its family (`<scale>/glue`).
"""

from __future__ import annotations

import copy
import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

from eva_bench.assets.identity import data_identity, data_names, model_identity
from eva_bench.settings.explain import check_added_and_removed, explain_hydra_error
from eva_bench.settings.schema import Config
from eva_bench.system.errors import UserError
from eva_bench.system.files import sha256_of
from eva_bench.system.paths import CONF, HARNESS

# Raised by hand whenever a change of the code changes numbers: old records then count as stale.
PROTOCOL = 2

# Keys that say where and how to run, but cannot change a number.
NOT_IN_FINGERPRINT = ("data.root", "data.workers", "model.path", "train.checkpoint_minutes")


@dataclass(frozen=True)
class RunSpec:
    """What determines the numbers of a run, as plain Python; and, apart from it, where to put things.

    Attributes:
        values: scale, task, method, model, data, adapter, calibration, train, eval, seed, stage, and the
            identities (checksums) of model and data.
        options: results_dir, runs_dir, tracking, threads, paths: never part of a fingerprint.
        origins: which values came from the command line and which from a tuned file.
    """

    values: dict[str, Any]
    options: dict[str, Any]
    origins: dict[str, Any] = field(default_factory=dict)

    def __getitem__(self, section: str) -> Any:
        return self.values[section]

    @property
    def init_id(self) -> str:
        names = ("protocol", "stage", "model", "data", "method", "adapter", "calibration", "seed", "identity")
        text = {"format": self.values["task"]["format"], "loss_on_prompt": self.values["train"]["loss_on_prompt"]}
        return fingerprint({name: self.values[name] for name in names} | text)

    @property
    def train_id(self) -> str:
        """Runs that differ in nothing but the evaluation share their training, unless it evaluates on its way."""
        parts = {"init": self.init_id, "train": self.values["train"]}
        if self.values["eval"]["every_epoch"]:
            parts |= {name: self.values[name] for name in ("task", "eval", "eval_data")}
        return fingerprint(parts)

    @property
    def run_id(self) -> str:
        v = self.values
        parts = {"train": self.train_id, "task": v["task"], "eval": v["eval"], "eval_data": v["eval_data"]}
        digest = fingerprint(parts | {"scale": v["scale"]["name"]})
        name = f"{v['task']['name']}-{v['method']['name']}-{v['scale']['name']}-s{v['seed']}".replace("/", "_")
        return f"{name}-{digest[:10]}"

    def to_json(self) -> str:
        return json.dumps({f.name: getattr(self, f.name) for f in fields(self)}, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> RunSpec:
        return cls(**json.loads(text))


def fingerprint(content: Any) -> str:
    """SHA-256 of canonical JSON: independent of key order, process and platform.

    A checkpoint counts by its content, not by the name of the folder it lies in. A setting that is null does not
    count, so that a new optional setting leaves the old fingerprints as they are.
    """
    text = json.dumps(_canonical(content), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _canonical(value: Any) -> Any:
    """1 and 1.0 are the same setting whether typed on the command line or read from YAML."""
    if isinstance(value, dict):
        return {str(key): _canonical(item) for key, item in value.items() if key != "checkpoint" and item is not None}
    if isinstance(value, (list, tuple)):
        return [_canonical(item) for item in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def stream_seed(seed: int, stream: str) -> int:
    """A seed for one named random stream (data order, initialisation, ...), derived from the run's seed."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{stream}".encode()).digest()[:6], "big")


def compose_spec(overrides: Sequence[str]) -> RunSpec:
    """Compose and validate a run from command-line overrides.

    Raises:
        UserError: unknown option or key, wrong type, missing choice; one clear sentence.
    """
    return to_spec(compose_settings(overrides), overrides)


def compose_settings(overrides: Sequence[str]) -> dict[str, Any]:
    """All settings as plain values, and which tuned file entered: what depends on conf/ and the overrides alone.

    Raises:
        UserError: as compose_spec.
    """
    scale, task, family, method = _names_in_files(overrides) or _names_by_hydra(overrides)
    places = (task, family)  # the more special one wins
    extra = []
    if not _chosen(overrides, "recipe"):
        recipe = _existing("recipe", [f"{scale}/{place}" for place in places])
        extra.append(f"recipe={recipe or f'{scale}/{family}'}")
    tuned = _existing("tuned", [f"{scale}/{place}/{method}" for place in places])
    if tuned and not _chosen(overrides, "tuned"):
        extra.append(f"tuned={tuned}")
    config = _compose([*extra, *overrides])
    ours = OmegaConf.masked_copy(config, [f.name for f in fields(Config)])
    if missing := sorted(OmegaConf.missing_keys(ours)):
        raise UserError(f"No value for {', '.join(missing)}: the recipe does not set it; give it on the command line.")
    settings = OmegaConf.to_container(ours, resolve=True)  # no config node travels further than this
    settings["method"] = {"name": method} | settings["method"]
    return {"settings": settings, "tuned": [item.split("=", 1)[1] for item in extra if item.startswith("tuned=")]}


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
    content = yaml.safe_load((CONF / "task" / f"{task}.yaml").read_text())
    return scale, content["name"], content["family"], method


def _default_scale() -> str:
    defaults = yaml.safe_load((CONF / "config.yaml").read_text())["defaults"]
    return next(item["scale"] for item in defaults if isinstance(item, dict) and "scale" in item)


def _existing(group: str, names: Sequence[str]) -> str | None:
    return next((name for name in names if (CONF / group / f"{name}.yaml").is_file()), None)


def _chosen(overrides: Sequence[str], group: str) -> bool:
    return any(item.split("=")[0] == group for item in overrides)


def _compose(overrides: Sequence[str]) -> DictConfig:
    check_added_and_removed(overrides)
    try:
        if GlobalHydra.instance().is_initialized():
            return compose("config", list(overrides), return_hydra_config=True)
        with initialize_config_dir(str(CONF), version_base="1.3"):
            return compose("config", list(overrides), return_hydra_config=True)
    except Exception as error:
        raise UserError(explain_hydra_error(error, overrides)) from error


def to_spec(composed: dict[str, Any], overrides: Sequence[str]) -> RunSpec:
    """The specification of composed settings: values checked, and model and data identified by their checksums.

    Raises:
        UserError: a value that cannot work, or a model or data set that is not on this machine.
    """
    plain = copy.deepcopy(composed["settings"])
    if plain["data"]["root"]:
        plain["data"]["source"] = "hub"
    _check_values(plain)
    options = {key: plain.pop(key) for key in ("results_dir", "runs_dir", "tracking", "threads", "wait", "force", "record_video")}
    for dotted in NOT_IN_FINGERPRINT:
        section, key = dotted.split(".")
        options[key if section == "train" else f"{section}_{key}"] = plain[section].pop(key)
    plain["protocol"] = PROTOCOL
    train_name, eval_name = data_names(plain)
    plain["identity"] = {"model": model_identity(plain, options), "data": data_identity(train_name, options)}
    plain["eval_data"] = data_identity(eval_name, options)
    for identity in (plain["identity"]["data"], plain["eval_data"]):
        if "deviation" in identity and plain["data"]["official_sizes"] is not False:
            raise UserError(f"{identity['deviation']} (data.official_sizes=false allows it).")
    if harness := plain["task"].get("harness"):  # prompts and answer extraction change numbers too
        names = [harness] if isinstance(harness, str) else harness
        digests = [sha256_of(HARNESS / f"{name}.yaml") for name in names]
        plain["eval_data"]["harness_sha256"] = digests[0] if isinstance(harness, str) else digests
    return RunSpec(plain, options, {"command_line": _without_paths(list(overrides)), "tuned": composed["tuned"]})


def _without_paths(overrides: list[str]) -> list[str]:
    """Records keep the user's overrides, but never a path of the user's machine."""
    hidden = ("data.root", "model.path", "results_dir", "runs_dir")
    return [re.sub(r"=.*", "=<path>", item) if item.split("=")[0] in hidden else item for item in overrides]


CHOICES = {
    "train.schedule": ("constant", "linear", "cosine"),
    "train.precision": ("float32", "bf16", "fp16"),
    "data.source": ("pocket", "hub"),
    "data.too_long": ("truncate", "drop"),
    "model.dtype": ("float32", "bfloat16", "float16"),
    "stage": ("tune", "final"),
    "model.kind": ("language", "classifier", "vision", "decision"),
    "tracking.mode": ("auto", "online", "offline", "off"),
}
POSITIVE = ("train.lr", "train.lr_ratio", "train.batch_size", "train.micro_batch_size", "data.max_length", "adapter.rank",
            "calibration.batch_size", "eval.batch_size", "eval.max_new_tokens", "eval.chunk", "threads",
            "train.steps", "train.epochs", "eval.limit")  # fmt: skip


def _check_values(plain: dict[str, Any]) -> None:
    def get(dotted: str) -> Any:
        section, _, key = dotted.partition(".")
        return plain[section][key] if key else plain[section]

    for dotted, allowed in CHOICES.items():
        if get(dotted) not in allowed:
            raise UserError(f"{dotted}={get(dotted)} is not one of {', '.join(allowed)}.")
    for dotted in POSITIVE:
        if get(dotted) is not None and not get(dotted) > 0:
            raise UserError(f"{dotted}={get(dotted)} must be greater than 0.")
    train = plain["train"]
    if train["steps"] is None and train["epochs"] is None:
        raise UserError("Give train.steps or train.epochs: how long should training be?")
    if train["batch_size"] % train["micro_batch_size"]:
        raise UserError(
            f"train.batch_size={train['batch_size']} is not a multiple of "
            f"train.micro_batch_size={train['micro_batch_size']}."
        )
