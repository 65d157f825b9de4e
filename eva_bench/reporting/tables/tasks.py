"""Which tasks tell methods apart at a scale, and which are left out of conclusions. No torch here."""

from __future__ import annotations

from eva_bench.reporting import statistics
from eva_bench.reporting.archive import Archive
from eva_bench.reporting.tables.cells import judged_tasks
from eva_bench.reporting.tables.spec import read_table
from eva_bench.reporting.tables.table import Cell, Line, Table, full_title
from eva_bench.system.paths import CONF

RULE = (
    "A task enters conclusions if its reliability, the share of the variance of the methods' means that is not noise "
    f"of seeds, is at least {statistics.ENOUGH}, and its methods do not all lie within {100 * statistics.NEAR:g} "
    "points of its ceiling (the expert's score, or everything right) or of its floor (the untouched model's score, or "
    "the best answer that is always the same). It is judged by the methods of the table of all tasks, as soon as each "
    "of them has two trainings of it; until then it counts. The rule looks at all methods together: it favours none."
)
HEADER = ["task", "reliability", "lowest mean", "highest mean", "deviation", "floor", "ceiling", "conclusions"]


def build_tasks(archive: Archive, scale: str) -> Table | None:
    """A line per judged task, the most reliable first; None where no task is judged."""
    judged = judged_tasks(archive, scale)
    if not judged:
        return None
    titles = {column.key: column.title for column in read_table(CONF / "table" / "overall.yaml").columns}
    lines = []
    for key, found in sorted(judged.items(), key=lambda item: (item[1].mark is not None, -item[1].reliability)):
        scores = [found.low, found.high, found.deviation, found.floor, found.ceiling]
        cells = [Cell(f"{found.reliability:.2f}", found.reliability)]
        cells += [Cell(f"{100 * score:.1f}", score) for score in scores]
        lines.append(Line(titles[key], [*cells, Cell(f"apart: {found.mark}" if found.mark else "yes")]))
    telling = sum(found.mark is None for found in judged.values())
    notes = [
        f"{telling} of {len(judged)} judged tasks enter conclusions. Scores in points; deviation: over seeds.",
        RULE,
    ]
    return Table("tasks", scale, None, full_title("What tasks tell apart", scale, None), HEADER, lines, notes)
