"""Several data sets of the manifest as one: rows of all `parts`, each with the name of its set. No torch here."""

from __future__ import annotations

import random
from typing import Any

from eva_bench.assets import catalogue
from eva_bench.system.errors import UserError
from eva_bench.system.files import sha256_of


def load(info: dict[str, Any], name: str, split: str, root: str | None) -> list[dict[str, Any]]:
    """Rows of a split of every part, `set` being the part's `reader`; in one fixed random order.

    A part calls its own file for `test` whatever its manifest entry says (`validation`, mostly). The order matters
    where rows are kept aside from the end of `train`: they come from all parts.

    Raises:
        UserError: parts that are not on this machine, all of them named.
    """
    _check_present(info, name, root)
    rows = []
    for part in info["parts"]:
        facts = catalogue.entry(part)
        rows += [{"set": facts["reader"], **row} for row in catalogue.load_rows(part, facts.get(split, split), root)]
    random.Random(f"{name} {split}").shuffle(rows)
    return rows


def identity(info: dict[str, Any], name: str, root: str | None) -> dict[str, Any]:
    """Revision and checksums of every part.

    Raises:
        UserError: parts that are not on this machine, all of them named.
    """
    _check_present(info, name, root)
    parts = {part: catalogue.entry(part) for part in info["parts"]}
    files = {
        part: {split: catalogue.local_file(part, split, root) for split in facts["splits"]}
        for part, facts in parts.items()
    }
    return {
        "revision": {part: facts["revision"] for part, facts in parts.items()},
        "sha256": {part: {split: sha256_of(path) for split, path in found.items()} for part, found in files.items()},
    }


def _check_present(info: dict[str, Any], name: str, root: str | None) -> None:
    absent = []
    for part in info["parts"]:
        try:
            for split in catalogue.entry(part)["splits"]:
                catalogue.local_file(part, split, root)
        except UserError:
            absent.append(part)
    if absent:
        where = f"below data.root={root}" if root else "below data/hub"
        raise UserError(
            f"'{name}' is the union of {len(info['parts'])} data sets, and {', '.join(absent)} "
            f"{'are' if len(absent) > 1 else 'is'} not {where}. Get all of them on a machine with network: "
            f"make fetch DATA={name}; or train on one of them: data.train={info['parts'][0]}"
        )
