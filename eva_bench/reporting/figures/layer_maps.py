"""Heat maps of numbers per layer: kind of weight by depth (the EVA paper's Figures 7-10, 13 and 14). No torch here."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from eva_bench.reporting.archive import Archive
from eva_bench.reporting.figures.style import Drawing
from eva_bench.reporting.tables.cells import select
from eva_bench.reporting.tables.selection import Selection
from eva_bench.reporting.tables.spec import Column, read_table
from eva_bench.system.paths import CONF

BESIDE = -1  # depth of weights that belong to no block (a head)
REDISTRIBUTES = "eva"  # the method whose ranks differ between layers
MOST_PANELS = 8  # of tasks; with more tasks their mean is shown


def draw_layers(selection: Selection, family: str, columns: Sequence[Column]) -> Iterator[Drawing]:
    """Ranks and explained variance per layer; one panel per task where they are few, else their mean."""
    tasks = [task for task in dict.fromkeys(c.task for c in columns) if (REDISTRIBUTES, task) in selection.cells]
    groups = {task: selection.cells[REDISTRIBUTES, task] for task in tasks}
    if len(tasks) > MOST_PANELS:
        groups = {f"{family}, mean of {len(tasks)} tasks": [run for cell in groups.values() for run in cell]}
    if (
        figure := draw_maps({title: [run.ranks for run in cell] for title, cell in groups.items()}, "rank")
    ) is not None:
        caption = f"EVA's rank per layer and kind of weight on {family}, mean over seeds."
        yield Drawing(f"ranks-{selection.scale}-{family}", figure, caption)
    key = "explained_variance"
    variance = {title: [run.initialisation.get(key, {}) for run in cell] for title, cell in groups.items()}
    if (figure := draw_maps(variance, "explained variance", 0, 1)) is not None:
        caption = (
            "Share of the input's variance that EVA's directions explain, "
            f"per layer and kind of weight on {family}, mean over seeds."
        )
        yield Drawing(f"variance-{selection.scale}-{family}", figure, caption)


def draw_rho(archive: Archive, scale: str) -> Iterator[Drawing]:
    """Ranks by rho, where the suite `rho` has been run."""
    table = read_table(CONF / "table" / "rho.yaml")
    for model in [model for at, model in archive.scales_and_models() if at == scale]:
        selection = select(archive, table, scale, model)
        groups = {row.title: [run.ranks for run in runs] for row in table.rows if (runs := selection.runs(row))}
        if selection.compares and (figure := draw_maps(groups, "rank")) is not None:
            caption = f"EVA's rank per layer by rho, {model}, mean over seeds."
            yield Drawing(f"ranks_rho-{scale}-{model}", figure, caption)


def draw_maps(
    groups: Mapping[str, Sequence[Mapping[str, float]]], label: str, low: float | None = None, high: float | None = None
) -> Figure | None:
    """One panel per group.

    Args:
        groups: title -> one mapping (layer name -> number) per run; their mean is shown.
        label: what the numbers are.
        low: lower end of the colour scale; None: the least number shown.
        high: upper end of the colour scale; None: the largest number shown.

    Returns:
        The figure, or None where no run has any number.
    """
    means = {title: _mean([run for run in runs if run]) for title, runs in groups.items()}
    means = {title: found for title, found in means.items() if found}
    if not means:
        return None
    values = [value for found in means.values() for value in found.values()]
    low, high = min(values) if low is None else low, max(values) if high is None else high
    kinds = list(dict.fromkeys(kind for found in means.values() for kind, _ in found))
    depths = sorted({depth for found in means.values() for _, depth in found}, key=lambda d: (d == BESIDE, d))
    columns = min(len(means), 4)
    rows = -(-len(means) // columns)
    width = max(2.2, 0.42 * len(depths) + 0.5) * columns + 1.6
    figure = Figure(figsize=(width, (0.26 * len(kinds) + 0.9) * rows))
    axes = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    for ax in axes.ravel()[len(means) :]:
        ax.set_visible(False)
    for ax, (title, found) in zip(axes.ravel(), means.items(), strict=False):
        grid = np.array([[found.get((kind, depth), np.nan) for depth in depths] for kind in kinds])
        image = _draw_map(ax, grid, low, high)
        ax.set_title(title)
        ax.set_yticks(range(len(kinds)), kinds)
        ax.set_xticks(range(len(depths)), ["–" if depth == BESIDE else str(depth) for depth in depths])
    figure.supxlabel("block", fontsize=9)
    figure.colorbar(image, ax=axes, label=label, shrink=0.8)
    return figure


def _draw_map(ax, grid: np.ndarray, low: float, high: float):
    """One heat map, with its numbers where there is room. Returns the image."""
    image = ax.imshow(grid, aspect="auto", cmap="viridis", vmin=low, vmax=high)
    room = grid.shape[1] <= 16
    for (y, x), value in np.ndenumerate(grid if room else np.empty((0, 0))):
        if not np.isnan(value):
            colour = "w" if value < low + 0.6 * (high - low) else "k"
            text = f"{value:.2g}" if high <= 1 else f"{value:.0f}"
            ax.text(x, y, text, ha="center", va="center", fontsize=6, color=colour)
    return image


def _mean(runs: Sequence[Mapping[str, float]]) -> dict[tuple[str, int], float]:
    """(kind, depth) -> mean over runs, in the order of the first run."""
    found: dict[tuple[str, int], list[float]] = {}
    for run in runs:
        for layer, value in run.items():
            found.setdefault(kind_and_depth(layer), []).append(value)
    return {key: float(np.mean(values)) for key, values in found.items()}


def kind_and_depth(layer: str) -> tuple[str, int]:
    """Kind and depth: `layers.3.self_attn.q_proj` -> (`self_attn.q_proj`, 3); outside the blocks the depth is -1."""
    match = re.fullmatch(r"(?:.*?\.)?(\d+)\.(.+)", layer)
    return (match[2], int(match[1])) if match else (layer.rpartition(".")[2], BESIDE)
