"""The figures of the EVA benchmark as a page and a plot."""

from __future__ import annotations

from pathlib import Path


def write_markdown(figures: dict, path: Path) -> None:
    """One table per group of figures, with what was to be reached."""
    machine = figures["machine"]
    lines = [
        "# EVA's initialisation", "",
        f"`python -m perf.eva_init`, {machine['cores']} cores, {machine['threads']} threads,"
        f" torch {machine['torch']}; medians, both sides in turn in one process that keeps freed memory, as runs do.", "",
        "## Against PEFT's EVA (reach: time >= 8, captured >= PEFT's and >= 0.995)", "",
        "Captured variance is measured in float64 against the best possible at the same ranks. Where the default tolerance"
        " leaves ours below PEFT's, further rows show smaller ones.", "",
    ]  # fmt: skip
    lines += _table(figures["against_peft"])
    lines += ["", "## Over bare forward passes (reach: <= 1.3 up to width 512, <= 1.1 from 2048)", ""]
    lines += ["Llama blocks of random weights, inputs with a decaying spectrum.", ""]
    lines += _table(figures["over_forward"])
    lines += ["", "## Growth (reach: no worse than linear in rows and layers)", "", "![growth](eva_init.svg)", ""]
    for what, runs in figures["growth"].items():
        lines += ["", f"By {what}:", "", *_table(runs)]
    lines += ["", "## Truncated SVD over PEFT's pissa_niter_16 (reach: time <= 1, residual no larger)", ""]
    lines += ["Singular values i^-decay.", "", *_table(figures["svd"])]
    path.write_text("\n".join(lines) + "\n")


def _table(rows: list[dict]) -> list[str]:
    if not rows:
        return ["not run here"]
    head = list(rows[0])
    body = [[_show(row.get(name, "–")) for name in head] for row in rows]
    return [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *body)]


def _show(value) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def draw_growth(growth: dict[str, list[dict]], path: Path) -> None:
    """Seconds over size, both axes logarithmic, bare passes beside."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "eva-bench"
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(1, len(growth), figsize=(3.2 * len(growth), 2.8), layout="constrained")
    for panel, (what, runs) in zip(panels, growth.items(), strict=True):
        sizes = [run[what] for run in runs]
        panel.loglog(sizes, [run["seconds"] for run in runs], "o-", label="initialisation")
        panel.loglog(sizes, [run["bare_s"] for run in runs], "s--", label="forward passes")
        panel.set_xlabel(what)
        panel.set_ylabel("seconds")
    panels[0].legend(frameon=False)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
