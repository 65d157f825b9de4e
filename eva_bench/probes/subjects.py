"""What a probe looks at: a run of this suite by its id, or anybody's adapter or checkpoint beside its base model."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from eva_bench import models
from eva_bench.assets.identity import model_folder, model_identity
from eva_bench.models.bundle import ModelBundle
from eva_bench.probes.trained import CONFIG, Layer, Trained, from_module, layers, read_adapter
from eva_bench.settings.schema import DataSettings, ModelSettings
from eva_bench.settings.spec import RunSpec, stream_seed
from eva_bench.system.errors import UserError
from eva_bench.system.files import sha256_of
from eva_bench.system.paths import CONF, POCKET_WEIGHTS, choices


@dataclass
class Subject:
    """A fine-tuning to look at.

    Attributes:
        name: of the run or folder; never a path.
        bundle: the untouched model.
        trained: what training left.
        checkpoint: the folder of the untouched model.
        sha256: of the file or files that training left.
        spec: of the run, where it is one.
    """

    name: str
    bundle: ModelBundle
    trained: Trained
    checkpoint: Path
    sha256: str
    spec: RunSpec | None = None

    def layers(self) -> Iterator[tuple[str, Layer]]:
        """The changed linear layers by name."""
        return layers(self.bundle.module, self.trained, self.bundle.targets)


def snapshots_of(run_id: str, runs_dir: str = "runs") -> list[int]:
    """The steps after which a run kept its weights.

    Raises:
        UserError: it kept none.
    """
    folders = (Path(runs_dir) / run_id / "snapshots").glob("step-*")
    if steps := sorted(int(folder.name.removeprefix("step-")) for folder in folders):
        return steps
    raise UserError(f"Run {run_id} has no snapshots: run it with train.snapshots=8, and force=true if it is done.")


def of_run(run_id: str, runs_dir: str = "runs", step: int | None = None) -> Subject:
    """A finished run of this suite, or one on its way.

    Args:
        run_id: name of the run.
        runs_dir: where runs leave their weights.
        step: of a snapshot; None: the end.

    Raises:
        UserError: no such run here, its adapter is gone, or its base model is not what it was.
    """
    folder = Path(runs_dir) / run_id
    spec = _spec(folder, run_id)
    if step is not None:
        folder = folder / "snapshots" / f"step-{step}"
    if model_identity(spec.model, runs_dir).sha256 != spec.identity.model.sha256:
        raise UserError(f"{spec.model.name} has other weights here than the base model of run {run_id}.")
    source = folder / ("model" if (folder / "model").is_dir() else "adapter")
    if not source.is_dir():
        raise UserError(f"The adapter of run {run_id} is gone: {folder} has none. Run it again with force=true.")
    if source.name == "adapter":
        trained = read_adapter(source)
    else:
        tuned = spec.model.model_copy(update={"path": str(source)})
        trained = from_module(_load(tuned, spec.data, _outputs(source)).module)
    bundle = _load(spec.model, spec.data, trained.outputs, stream_seed(spec.seed, "head"))
    name = run_id if step is None else f"{run_id}-step{step}"
    return Subject(name, bundle, trained, model_folder(spec.model), _checksum(source), spec)


def of_adapter(adapter: Path, base: str, same_base: bool = False) -> Subject:
    """A stock PEFT LoRA adapter and its base model.

    Args:
        adapter: its folder.
        base: folder of a checkpoint, or a name of conf/model/.
        same_base: the base is the adapter's, although its configuration names it otherwise.

    Raises:
        UserError: no such adapter, an unreadable one, or one of another base.
    """
    trained = read_adapter(adapter)
    endings = sorted({name.rpartition(".")[2] for name in trained.factors})
    model = base_model(base, endings, "classifier" if _json(adapter / CONFIG).get("task_type") == "SEQ_CLS" else None)
    given = Path(trained.base or "").name
    if given and given not in _names_of(model) and not same_base:
        raise UserError(
            f"The adapter '{adapter.name}' was trained on '{given}' by its configuration, and base={base} has another "
            "name: if it is the same model, add same_base=true."
        )
    try:
        bundle = _load(model, DataSettings(source="hub"), trained.outputs)
    except UserError as error:
        if not str(error).startswith("model.targets"):
            raise
        wanted = ", ".join(endings)
        raise UserError(f"'{adapter.name}' was trained on another base: base={base} lacks its {wanted}.") from error
    return Subject(adapter.name, bundle, trained, model_folder(model), _checksum(adapter))


def of_checkpoint(checkpoint: Path, base: str, targets: Sequence[str] = ()) -> Subject:
    """A fully fine-tuned model and its base model.

    Args:
        checkpoint: its folder.
        base: folder of a checkpoint, or a name of conf/model/.
        targets: last parts of the names of the layers to look at; those of conf/model/ where base is one of its names.

    Raises:
        UserError: no such checkpoint, or one of another architecture.
    """
    if (checkpoint / CONFIG).is_file():
        raise UserError(f"'{checkpoint.name}' is an adapter, not a whole checkpoint: give it as adapter={checkpoint}.")
    model = base_model(base, list(targets))
    tuned = model.model_copy(update={"path": str(checkpoint)})
    outputs = _outputs(model_folder(tuned))
    trained = from_module(_load(tuned, DataSettings(source="hub"), outputs).module)
    bundle = _load(model, DataSettings(source="hub"), outputs)
    return Subject(checkpoint.name, bundle, trained, model_folder(model), _checksum(checkpoint))


def _spec(folder: Path, run_id: str) -> RunSpec:
    file = folder / "spec.json"
    if not file.is_file():
        raise UserError(f"Run {run_id} has left nothing in '{folder.parent}': give runs_dir=<folder>, or run it again.")
    try:
        return RunSpec.from_json(file.read_text())
    except ValueError as error:
        raise UserError(f"spec.json of run {run_id} was written by another version of eva-bench.") from error


def _load(model: ModelSettings, data: DataSettings, outputs: int | None, head_seed: int = 0) -> ModelBundle:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if model.kind == "classifier":
        outputs = outputs or 2  # of a head that no probe looks at
    return models.load(model, data, device, outputs if model.kind in ("classifier", "vision") else None, head_seed)


def base_model(base: str, endings: list[str], kind: str | None = None) -> ModelSettings:
    """Settings of a base model given as a folder or by its name in conf/model/."""
    if base in choices("model"):
        known = yaml.safe_load((CONF / "model" / f"{base}.yaml").read_text())
        return ModelSettings.model_validate(known | ({"targets": endings} if endings else {}))
    folder = Path(base).expanduser()
    if not (folder / "config.json").is_file():
        raise UserError(f"base={base} is neither a folder with a checkpoint (config.json) nor a name of conf/model/.")
    if not endings:
        raise UserError(f"base={base} is a folder: say which layers to look at, for instance targets=q_proj,v_proj.")
    config = _json(folder / "config.json")
    dtype = config.get("dtype") or config.get("torch_dtype") or "float32"
    found = {
        "name": folder.name,
        "path": str(folder),
        "targets": endings,
        "dtype": dtype,
        "kind": kind or _kind(config),
    }
    return ModelSettings.model_validate(found)


def _kind(config: dict[str, Any]) -> str:
    """What a checkpoint's config.json describes: timm's, ours of control, or one of transformers."""
    if "architecture" in config:
        return "vision"
    if {"layers", "context", "state_size"} <= config.keys():
        return "decision"
    return "language" if any("CausalLM" in name for name in config.get("architectures") or []) else "classifier"


def _outputs(folder: Path) -> int | None:
    """How many outputs the head of a tuned checkpoint has."""
    config = _json(folder / "config.json")
    return config.get("num_classes") or len(config.get("id2label") or ()) or None


def _names_of(model: ModelSettings) -> set[str]:
    """What a base model may be called: by its folder, its snapshot's repository, its entries in conf/model/."""
    folder = model_folder(model).resolve()
    names = {model.name, folder.name}
    if folder.parent.name == "snapshots":  # the cache of the hub: models--<owner>--<name>/snapshots/<revision>
        names.add(folder.parent.parent.name.split("--")[-1])
    for name in choices("model"):
        known = ModelSettings.model_validate(yaml.safe_load((CONF / "model" / f"{name}.yaml").read_text()))
        pocket = known.path and (POCKET_WEIGHTS / known.path.removeprefix("pocket:")).resolve()
        if known.name in names or pocket == folder or (known.hub_id and Path(known.hub_id).name in names):
            names |= {known.name, Path(known.hub_id or known.name).name}
    return names


def _checksum(folder: Path) -> str:
    """Of the weights that training left."""
    files = sorted(file for pattern in ("*.safetensors", "*.bin") for file in folder.glob(pattern))
    return sha256_of(json.dumps({file.name: sha256_of(file) for file in files}))


def _json(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{file.name} of '{file.parent.name}' cannot be read as JSON.") from error
    return found if isinstance(found, dict) else {}
