"""What the report page shows: tables, figures, runs, and what was not run. No torch here."""

from __future__ import annotations

import base64
import io
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib

from eva_bench.reporting.archive import Archive
from eva_bench.reporting.figures import drawings
from eva_bench.reporting.figures.style import STYLE
from eva_bench.reporting.page.runs import run_index, runs_as_json
from eva_bench.reporting.tables.command import all_tables
from eva_bench.reporting.tables.notes import origin
from eva_bench.reporting.tables.spec import read_tables
from eva_bench.reporting.tables.table import MISSING, Table
from eva_bench.system.paths import choices


def content(archive: Archive, runs_dir: Path) -> dict[str, Any]:
    """The variables of page.html.j2. Raises UserError as the tables do."""
    tables = all_tables(archive)
    first = [table for table in tables if table.name.startswith("overall")]
    return {
        "facts": _facts(archive),
        "origin": origin(archive.runs) if archive.runs else "No records yet.",
        "tables": [*first, *(table for table in tables if table not in first)],
        "figures": list(_figures(archive)),
        "index": run_index(archive.runs),
        "runs": runs_as_json(archive.runs, runs_dir),
        "not_run": not_run(archive, tables),
        "unfinished": [run for run in archive.runs if run.status != "ok"],
    }


def _facts(archive: Archive) -> dict[str, int]:
    """The numbers at the top of the page."""
    done = [run for run in archive.runs if run.status == "ok"]
    return {
        "records": len(archive.runs),
        "finished": len(done),
        "tasks": len({run.task for run in done}),
        "methods": len({run.method for run in done}),
        "seeds": len({run.seed for run in done if run.stage == "final"}),
    }


def _figures(archive: Archive) -> Iterator[dict[str, str]]:
    """Figures as data addresses: an image of its own cannot disturb the page's names and styles."""
    with matplotlib.rc_context(STYLE):
        for drawing in drawings(archive):
            file = io.BytesIO()
            drawing.figure.savefig(file, format="svg", metadata={"Date": None})
            address = "data:image/svg+xml;base64," + base64.b64encode(file.getvalue()).decode()
            yield {"name": drawing.name, "address": address, "caption": drawing.caption}


def not_run(archive: Archive, tables: list[Table]) -> list[str]:
    """Scales and tables without any record, and methods that lack cells of a table that has some."""
    lines = []
    if idle := sorted(set(choices("scale")) - set(archive.scales())):
        lines.append(f"Nothing has been run at scale {', '.join(idle)}.")
    present = {table.name for table in tables}
    if absent := [f"{table.title} ({table.name})" for table in read_tables() if table.name not in present]:
        lines.append(f"Tables without records: {'; '.join(absent)}.")
    for table in tables:
        if "seeds" not in table.header:
            continue
        columns = table.header[1 : table.header.index("seeds")]
        gaps = Counter()
        for line in table.lines:
            if line.kind == "ours":
                gaps[line.title] = sum(cell.text == MISSING for cell in line.cells[: len(columns)])
        whole = [title for title, missing in gaps.items() if missing == len(columns)]
        part = [
            f"{title} ({missing} of {len(columns)})" for title, missing in gaps.items() if 0 < missing < len(columns)
        ]
        missing = [f"no runs of {', '.join(whole)}"] * bool(whole) + [f"cells missing for {', '.join(part)}"] * bool(
            part
        )
        if missing:
            lines.append(f"{table.title}: {'; '.join(missing)}.")
    return lines
