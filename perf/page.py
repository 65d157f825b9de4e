"""Figures as results/bench/<name>.json and .md."""

from __future__ import annotations

import json
from pathlib import Path

FOLDER = Path(__file__).resolve().parent.parent / "results" / "bench"


def write(name: str, title: str, figures: dict[str, dict], note: str = "", folder: Path = FOLDER) -> None:
    """Write and print a table of figures, each {value, unit, reach}, with a note below it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(figures, indent=1) + "\n")
    rows = [f"| {figure} | {f['value']} {f['unit']} | {f['reach']} |" for figure, f in figures.items()]
    lines = [f"# {title}", "", "| figure | measured | reach |", "| --- | --- | --- |", *rows]
    text = "\n".join([*lines, *(["", note.strip()] if note else [])])
    (folder / f"{name}.md").write_text(text + "\n")
    print(text)
