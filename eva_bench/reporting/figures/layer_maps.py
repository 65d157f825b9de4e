"""Heat maps of numbers per layer: kind of weight by depth (the EVA paper's Figures 7-10, 13 and 14). No torch here."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

BESIDE = -1  # depth of weights that belong to no block (a head)


def draw_maps(
    groups: Mapping[str, Sequence[Mapping[str, float]]], label: str, low: float | None = None, high: float | None = None
) -> Figure | None:
    """One panel per group.

    Args:
        groups: title -> one mapping (layer name -> number) per run; their mean is shown.
        low, high: ends of the colour scale; None: the least and the largest number shown.

    Returns:
        None where no run has any number.
    """
    means = {title: _mean([run for run in runs if run]) for title, runs in groups.items()}
    means = {title: found for title, found in means.items() if found}
    if not means:
        return None
    values = [value for found in means.values() for value in found.values()]
    low, high = min(values) if low is None else low, max(values) if high is None else high
    kinds = list(dict.fromkeys(kind for found in means.values() for kind, _ in found))
    depths = sorted({depth for found in means.values() for _, depth in found}, key=lambda depth: (depth == BESIDE, depth))
    columns = min(len(means), 4)
    rows = -(-len(means) // columns)
    size = (max(2.2, 0.42 * len(depths) + 0.5) * columns + 1.6, (0.26 * len(kinds) + 0.9) * rows)
    figure = Figure(figsize=size)
    axes = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    for ax in axes.ravel()[len(means) :]:
        ax.set_visible(False)
    for ax, (title, found) in zip(axes.ravel(), means.items(), strict=False):
        grid = np.array([[found.get((kind, depth), np.nan) for depth in depths] for kind in kinds])
        image = ax.imshow(grid, aspect="auto", cmap="viridis", vmin=low, vmax=high)
        ax.set_title(title)
        ax.set_yticks(range(len(kinds)), kinds)
        ax.set_xticks(range(len(depths)), ["–" if depth == BESIDE else str(depth) for depth in depths])
        for (y, x), value in np.ndenumerate(grid if len(depths) <= 16 else np.empty((0, 0))):
            if not np.isnan(value):
                dark = value < low + 0.6 * (high - low)
                ax.text(x, y, f"{value:.2g}" if high <= 1 else f"{value:.0f}", ha="center", va="center", fontsize=6, color="w" if dark else "k")
    figure.supxlabel("block", fontsize=9)
    figure.colorbar(image, ax=axes, label=label, shrink=0.8)
    return figure


def _mean(runs: Sequence[Mapping[str, float]]) -> dict[tuple[str, int], float]:
    """(kind, depth) -> mean over runs, in the order of the first run."""
    found: dict[tuple[str, int], list[float]] = {}
    for run in runs:
        for layer, value in run.items():
            found.setdefault(place(layer), []).append(value)
    return {key: float(np.mean(values)) for key, values in found.items()}


def place(layer: str) -> tuple[str, int]:
    """`model.layers.3.self_attn.q_proj` -> (`self_attn.q_proj`, 3); a weight outside the blocks has depth -1."""
    match = re.fullmatch(r"(?:.*?\.)?(\d+)\.(.+)", layer)
    return (match[2], int(match[1])) if match else (layer.rpartition(".")[2], BESIDE)
