"""What a pretrained pocket model leaves behind besides its weights: manifest.json."""

import argparse
import json
import platform
from importlib import metadata
from pathlib import Path

import transformers

from eva_bench.system.files import sha256_of, write_atomically

NAME = "manifest.json"


def command(module: str, arguments: argparse.Namespace, *names: str) -> str:
    """Return the command that repeats a pretraining.

    Args:
        module: the module's address.
        arguments: what its command line was parsed to.
        names: the options that decide what the weights are.
    """
    values = {name: getattr(arguments, name) for name in names}
    given = {name: value if isinstance(value, list | tuple) else [value] for name, value in values.items()}
    options = (f"--{name} {' '.join(map(str, value))}" for name, value in given.items())
    return " ".join(["python -m", module, *options])


def versions(*packages: str) -> dict[str, str]:
    """Return Python's version and those of some packages."""
    return {"python": platform.python_version()} | {name: metadata.version(name) for name in packages}


def save_pretrained(folder: Path, model, tokenizer, facts: dict) -> None:
    """Save a transformers model and its tokenizer, then the manifest with `facts`."""
    transformers.utils.logging.disable_progress_bar()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    write(folder, facts)


def write(folder: Path, facts: dict) -> None:
    """Write the manifest: `facts` and the checksum of every other file of the folder."""
    files = sorted(path for path in folder.iterdir() if path.is_file() and path.name != NAME)
    facts = facts | {"sha256": {path.name: sha256_of(path) for path in files}}
    write_atomically(folder / NAME, json.dumps(facts, indent=2) + "\n")
