"""What Hydra would let pass: choices outside their folder, values that are no names, classes that are not ours."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from eva_bench.settings.explain import listing
from eva_bench.system import paths
from eva_bench.system.errors import UserError, did_you_mean
from eva_bench.system.paths import choices

GROUPS = ("scale", "task", "method", "model", "tracking", "recipe", "tuned")


def check_choices(overrides: Sequence[str]) -> None:
    """Choices are names of files in conf/, not paths, lists or file names.

    Raises:
        UserError: a choice that does not exist, or several where one is meant.
    """
    for item in overrides:
        group, given, name = item.partition("=")
        name = name.strip("'\"")
        if group not in GROUPS or not given:
            continue
        if name.startswith("["):
            raise UserError(f"'{item}': a run has one {group}; `-m {group}={name.strip('[]')}` runs several.")
        known = choices(group)
        if name not in known and set(name.split(",")) <= set(known):
            raise UserError(f"'{item}' gives several values: add -m to run all of them.")
        if name not in known:
            families = {choice.partition("/")[0] for choice in known}  # `task=glue` stands for all of them
            near = did_you_mean(name, dict.fromkeys([*known, *sorted(families)]))
            raise UserError(f"Unknown {group} '{name}'.{near} Known: {listing(known)}.")


def check_target(group: str, content: Any) -> None:
    """A method's or task's class is one that a file of its folder names; nothing else is ever imported.

    Raises:
        UserError: another address.
    """
    target = content.get("_target_", "") if isinstance(content, dict) else ""
    if target not in _targets(paths.CONF / group):
        raise UserError(f"{group}._target_={target} is the class of no {group} in conf/{group}/.")


@cache
def _targets(folder: Path) -> frozenset[str]:
    texts = (path.read_text() for path in folder.rglob("*.yaml"))
    return frozenset(target for text in texts for target in re.findall(r"^_target_:\s*(\S+)", text, re.MULTILINE))
