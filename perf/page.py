"""Results of benchmarks as results/bench/<name>.json and .md."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from eva_bench.system.files import write_atomically
from eva_bench.system.meter import Cost
from eva_bench.system.paths import RESULTS

FOLDER = RESULTS / "bench"
# Phases of a run that are its work and not overhead.
WORK = ("eval_before", "forgetting_before", "init", "train", "eval", "forgetting")


def work(costs: Mapping[str, Cost]) -> float:
    """Seconds of a run that are its work, from the costs of its record."""
    return sum(cost.seconds for phase, cost in costs.items() if phase in WORK)


def figure(value: float, unit: str, target: str = "-", **details: Any) -> dict[str, Any]:
    """One figure of `write`.

    Args:
        value: what was measured.
        unit: of it.
        target: what it should be, such as "<= 60".
        details: what else the JSON file keeps.
    """
    return {"value": value, "unit": unit, "target": target} | details


def write(name: str, title: str, figures: dict[str, dict], note: str = "", folder: Path = FOLDER) -> None:
    """Write and print figures, each {value, unit, target}, as one table.

    Args:
        name: of the files, without suffix.
        title: heading of the page.
        figures: by what they say.
        note: Markdown below the table.
        folder: where the files go.
    """
    rows = [
        {"figure": figure, "measured": f"{facts['value']} {facts['unit']}", "target": facts["target"]}
        for figure, facts in figures.items()
    ]
    _write(name, title, rows, figures, note, folder)


def write_rows(name: str, title: str, rows: Sequence[dict[str, Any]], note: str = "", folder: Path = FOLDER) -> None:
    """Write and print rows as one table, their keys as its header; otherwise as `write`."""
    _write(name, title, rows, rows, note, folder)


def _write(name: str, title: str, rows: Sequence[dict], content: Any, note: str, folder: Path) -> None:
    text = "\n".join([f"# {title}", "", *table(rows), *(["", note.strip()] if note else [])])
    write_atomically(folder / f"{name}.json", json.dumps(content, indent=1) + "\n")
    write_atomically(folder / f"{name}.md", text + "\n")
    print(text)


def table(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Lines of a Markdown table; an empty cell for None."""
    header = list(rows[0])
    cells = [[str("" if row[key] is None else row[key]) for key in header] for row in rows]
    return [f"| {' | '.join(line)} |" for line in (header, ["---"] * len(header), *cells)]
