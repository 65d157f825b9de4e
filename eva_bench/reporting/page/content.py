"""What the report page shows: comparisons, tables, figures, runs, claims, and what was not run. No torch here."""

from __future__ import annotations

import io
from collections import Counter
from pathlib import Path
from typing import Any

import matplotlib

from eva_bench.reporting.archive import Archive
from eva_bench.reporting.claims.evaluate import judge
from eva_bench.reporting.claims.spec import read_claims
from eva_bench.reporting.figures import drawings
from eva_bench.reporting.figures.style import STYLE
from eva_bench.reporting.page.blocks import pack, short
from eva_bench.reporting.page.probes import probe_tables
from eva_bench.reporting.page.runs import run_blocks, run_index
from eva_bench.reporting.page.scales import MEASURES, scale_data
from eva_bench.reporting.tables.command import all_tables
from eva_bench.reporting.tables.formats import to_latex
from eva_bench.reporting.tables.notes import POCKET, origin
from eva_bench.reporting.tables.spec import read_tables
from eva_bench.reporting.tables.table import MISSING, Table
from eva_bench.system.paths import choices


def content(archive: Archive, runs_dir: Path) -> dict[str, Any]:
    """The variables of page.html.j2. Raises UserError as the tables do."""
    tables = sorted(all_tables(archive)[0], key=lambda table: not table.name.startswith("overall"))  # the whole first
    scales = [data for scale in archive.scales() if (data := scale_data(archive, scale)) is not None]
    missing = not_run(archive, tables)
    main = {
        "scales": scales,
        "measures": list(MEASURES),
        "tables": [_table(table) for table in tables],
        "runs": run_index(archive.runs),
        "claims": _claims(archive),
        "probes": probe_tables(archive.runs),
        "not_run": missing,
    }
    overall = next((t for t in tables if t.name == "overall-statistics"), None)
    return {
        "facts": _facts(archive, scales),
        "origin": origin(archive.runs) if archive.runs else "No records yet.",
        "pocket": POCKET if "pocket" in archive.scales() else "",
        "overall": overall,
        "titles": [table.title for table in tables],
        "not_run": missing,
        "main": pack(main),
        "blocks": run_blocks(archive.runs, runs_dir),
        "figures": [pack(figure) for figure in _figures(archive)],
    }


def _facts(archive: Archive, scales: list[dict[str, Any]]) -> dict[str, int]:
    """The numbers at the top of the page; tasks as the tables below count them: a union of sets is as many tasks."""
    done = [run for run in archive.runs if run.status == "ok"]
    tasks = {title for data in scales for cells in data["scores"].values() for title in cells}
    return {
        "records": len(archive.runs),
        "finished": len(done),
        "tasks": len(tasks or {run.task for run in done}),
        "methods": len({run.method for run in done}),
        "seeds": len({run.seed for run in done if run.stage == "final"}),
    }


def _table(table: Table) -> dict[str, Any]:
    """A finished table: each cell as text, or [text, what it sorts by, bold]."""
    lines = [
        [
            line.title,
            line.kind,
            [[c.text, short(c.sort, 6), int(c.bold)] if c.sort is not None else c.text for c in line.cells],
        ]
        for line in table.lines
    ]
    names = {"file": table.file, "title": table.title, "header": table.header, "notes": table.notes}
    return names | {"lines": lines, "latex": to_latex(table)}


def _claims(archive: Archive) -> list[dict[str, Any]]:
    """Every claim with its verdict and findings at every scale."""
    found = []
    for claim in read_claims():
        judged = {scale: judge(claim, archive, scale) for scale in archive.scales()}
        verdicts = {scale: [verdict, [finding.text for finding in parts]] for scale, (verdict, parts) in judged.items()}
        words = {"number": claim.number, "claim": claim.claim, "published": claim.published, "source": claim.source}
        found.append(words | {"verdicts": verdicts})
    return found


def _figures(archive: Archive) -> list[dict[str, str]]:
    """Figures as SVG text, shown as images: an image of its own cannot disturb the page's names and styles."""
    found = []
    with matplotlib.rc_context(STYLE):
        for drawing in drawings(archive):
            file = io.BytesIO()
            drawing.figure.savefig(file, format="svg", metadata={"Date": None})
            svg = file.getvalue().decode()
            found.append({"name": drawing.name, "svg": svg, "caption": drawing.caption})
    return found


def not_run(archive: Archive, tables: list[Table]) -> list[str]:
    """Scales and tables without any record, methods that lack cells of a table that has some, runs without a score."""
    lines = []
    if idle := sorted(set(choices("scale")) - set(archive.scales())):
        lines.append(f"Nothing has been run at scale {', '.join(idle)}.")
    present = {table.name for table in tables}
    if absent := [f"{table.title} ({table.name})" for table in read_tables() if table.name not in present]:
        lines.append(f"Tables without records: {'; '.join(absent)}.")
    lines += [text for table in tables if (text := _gaps(table))]
    for run in archive.runs:
        if run.status != "ok":
            lines.append(f"{run.run_id}: {run.status}" + (f", {run.error.splitlines()[0]}" if run.error else ""))
    return lines


def _gaps(table: Table) -> str | None:
    """Which methods of a table were not run, in whole or in part."""
    if "seeds" not in table.header:
        return None
    columns = table.header[1 : table.header.index("seeds")]
    gaps: Counter[str] = Counter()
    for line in table.lines:
        if line.kind == "ours":
            gaps[line.title] = sum(cell.text == MISSING for cell in line.cells[: len(columns)])
    whole = [title for title, missing in gaps.items() if missing == len(columns)]
    part = [f"{title} ({missing} of {len(columns)})" for title, missing in gaps.items() if 0 < missing < len(columns)]
    said = [f"no runs of {', '.join(whole)}"] * bool(whole) + [f"cells missing for {', '.join(part)}"] * bool(part)
    return f"{table.title}: {'; '.join(said)}." if said else None
