"""What all pocket models leave behind: a Hugging Face folder and a manifest with the checksum of every file."""

import json
import platform
from importlib import metadata
from pathlib import Path

import transformers

from eva_bench.system.files import sha256_of


def versions(*packages: str) -> dict[str, str]:
    """Python's version and those of some packages."""
    return {"python": platform.python_version()} | {name: metadata.version(name) for name in packages}


def write(folder: Path, model, tokenizer, facts: dict) -> None:
    """Save model and tokenizer, and last `facts` with the checksum of every file."""
    transformers.utils.logging.disable_progress_bar()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    files = sorted(path for path in folder.iterdir() if path.name != "manifest.json")
    facts["sha256"] = {path.name: sha256_of(path) for path in files}
    (folder / "manifest.json").write_text(json.dumps(facts, indent=2) + "\n")
