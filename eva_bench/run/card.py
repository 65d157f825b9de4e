"""The model card of an export: what it was trained on, what it scores, and the lines that load it. No torch here."""

from __future__ import annotations

import shlex
from pathlib import Path

import yaml

from eva_bench.assets.identity import cached_sha256, model_folder, weight_files
from eva_bench.run.console import shown
from eva_bench.settings.spec import RunSpec

LOADERS = {  # classes of transformers; other kinds are modules of this suite
    "language": ("AutoModelForCausalLM", ""),
    "classifier": ("AutoModelForSequenceClassification", ", num_labels={outputs}"),
}


def write_card(
    folder: Path, spec: RunSpec, before: dict[str, float], after: dict[str, float], outputs: int | None
) -> None:
    """Write README.md into the folder of an adapter or of a whole model.

    Args:
        folder: of the export.
        spec: of the run.
        before: metrics of the untouched model.
        after: metrics of the trained one.
        outputs: of its head, if it has one.
    """
    facts: dict[str, object] = {"tags": ["eva-bench", spec.method.name]}
    facts |= {"library_name": "peft"} if folder.name == "adapter" else {}
    facts |= {"base_model": spec.model.hub_id} if _is_of_the_hub(spec) else {}
    primary = spec.task.primary
    score = f"{primary}: {shown(primary, before.get(primary))} before, {shown(primary, after.get(primary))} after"
    rows = {
        "base model": f"`{spec.identity.model.checkpoint}`",
        "where to get it": where_to_get(spec),
        "its weights": "<br>".join(f"`{name}` sha256 `{digest}`" for name, digest in _weights(spec).items()),
        "task": f"{spec.task.name}, scale {spec.scale.name}; trained on `{spec.identity.train_data.name}`",
        "score": f"{score} ({after.get('samples', 0):.0f} rows of `{spec.identity.eval_data.name}`, seed {spec.seed})",
        "command": f"`{command(spec)}`",
    }
    front = yaml.safe_dump(facts, sort_keys=True)
    table = "\n".join(f"| {name} | {text} |" for name, text in rows.items())
    title = f"# {spec.method.name} on {spec.task.name}"
    parts = [f"---\n{front}---\n{title}\n", f"| | |\n| --- | --- |\n{table}\n", _loading(folder, spec, outputs)]
    (folder / "README.md").write_text("\n".join(parts), encoding="utf-8")


def command(spec: RunSpec) -> str:
    """The command line that makes this run; paths of the machine are not in it."""
    return shlex.join(["python", "run.py", *spec.origins.command_line])


def where_to_get(spec: RunSpec) -> str:
    """How somebody else comes by the base model."""
    if name := _pocket_name(spec):
        return f'part of eva-bench: `eva_bench.pocket_model("{name}")` is its folder'
    if _is_of_the_hub(spec):
        return f"https://huggingface.co/{spec.model.hub_id}, revision `{spec.model.revision}`"
    return "a folder that the run was given by `model.path`"


def base_name(spec: RunSpec) -> tuple[str, str | None]:
    """What the adapter's configuration calls its base, and the revision: a hub id, or the folder on this machine."""
    if spec.model.hub_id is not None and _is_of_the_hub(spec):
        return spec.model.hub_id, spec.model.revision
    return str(model_folder(spec.model).resolve()), None


def _is_of_the_hub(spec: RunSpec) -> bool:
    return spec.model.path is None and spec.model.hub_id is not None


def _pocket_name(spec: RunSpec) -> str | None:
    """The name of a base that this project has made."""
    path = spec.model.path
    return path.removeprefix("pocket:") if path is not None and path.startswith("pocket:") else None


def _weights(spec: RunSpec) -> dict[str, str]:
    files = weight_files(model_folder(spec.model))
    return {file.name: cached_sha256(file, spec.where.runs_dir) for file in files if file.suffix == ".safetensors"}


def _loading(folder: Path, spec: RunSpec, outputs: int | None) -> str:
    """The lines that load the export."""
    if folder.name == "model":
        return "`model.path=<this folder>` takes it as the base of further runs.\n"
    if spec.model.kind not in LOADERS:
        said = f"The base is a module of eva-bench, of kind {spec.model.kind}. `spec.json` beside this folder has it.\n"
        lines = [
            "from eva_bench import models",
            "from eva_bench.settings.spec import RunSpec",
            "from peft import PeftModel",
        ]
        lines += ['spec = RunSpec.from_json(open("spec.json").read())']
        lines += [f'base = models.load(spec.model, spec.data, "cpu", {outputs}).module']
    else:
        loader, more = LOADERS[spec.model.kind]
        said, base = "", '"<folder of the base>"'
        lines = ["from peft import PeftModel", f"from transformers import {loader}"]
        if _pocket_name(spec):
            lines, base = ["from eva_bench import pocket_model", *lines], f'pocket_model("{_pocket_name(spec)}")'
        elif _is_of_the_hub(spec):
            base = f'"{spec.model.hub_id}", revision="{spec.model.revision}"'
        lines += [f"base = {loader}.from_pretrained({base}{more.format(outputs=outputs)})"]
    lines += ['model = PeftModel.from_pretrained(base, "<this folder>")']
    return said + "```python\n" + "\n".join(lines) + "\n```\n"
