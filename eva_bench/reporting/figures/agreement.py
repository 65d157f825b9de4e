"""Scores at one scale against scores at another, method by method. No torch here."""

from __future__ import annotations

import numpy as np

from eva_bench.reporting.archive import Archive
from eva_bench.reporting.figures.style import Drawing, legend, look, panels
from eva_bench.reporting.tables.agreement import agreement_of, common_columns, correlation_cell, sides_of
from eva_bench.reporting.tables.spec import TableSpec


def draw_agreement(archive: Archive, table: TableSpec) -> Drawing | None:
    """A panel per task of a table that names two scales; None where one of them has no runs.

    Raises:
        UserError: as `select`.
    """
    sides = sides_of(table, archive)
    columns = common_columns(table, sides)
    if not sides or not columns:
        return None
    figure, axes = panels(len(columns), 3.0, 2.7)
    for ax, column in zip(axes, columns, strict=True):
        for row in table.rows:
            found = [[100 * value for value in side.scores(row, column).values()] for side in sides]
            if all(found):
                (x, y), (across, up) = map(np.mean, found), map(_deviation, found)
                style = look(row.method)
                ax.errorbar(x, y, up, across, linestyle="", elinewidth=0.7, alpha=0.9, label=row.title, **style)
        names = [f"scale={side.scale}, %" for side in sides]
        ax.set(
            title=f"{column.title}: {correlation_cell(agreement_of(sides, [column])).text}",
            xlabel=names[0],
            ylabel=names[1],
        )
    legend(figure, axes)
    ours, theirs = (side.scale for side in sides)
    caption = (
        f"Methods' mean scores at scale={ours} and scale={theirs}, bars: one standard deviation over seeds. "
        "Above a panel: the rank correlation of the means and its 95 % interval."
    )
    return Drawing(f"{table.name}-agreement-{ours}-{theirs}", figure, caption)


def _deviation(values: list[float]) -> float:
    return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
