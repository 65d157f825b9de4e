"""The figures of the EVA benchmark as a page and a plot."""

from __future__ import annotations

from pathlib import Path

PEFT_TITLE = "Against PEFT's EVA on {} (target: time >= 10; captured in total >= PEFT's; worst layer >= 0.99 or PEFT's)"
PEFT_NOTE = (
    "960 rows of text, 16 x 128 positions a batch, r=16, rho=2. Captured variance is measured in float64 on all rows,"
    " over the best possible at the same ranks. `bare_s`: forward passes alone over the batches that ours read."
)
TITLES = {
    **{f"against_peft_{name}": (PEFT_TITLE.format(name), PEFT_NOTE) for name in ("minilm", "pocket", "stories260K")},
    "over_forward": (
        "Over bare forward passes (target in bf16: <= 1.2 at widths 384 and 512, <= 1.1 at 2048)",
        "Llama blocks of random weights, inputs with a decaying spectrum; both sides read every batch.",
    ),
    "growth": ("Growth (target: no worse than linear in rows and layers)", "![growth](eva_init.svg)"),
    "svd": (
        "Truncated SVD over PEFT's pissa_niter_16 (target: time <= 0.9, residual no larger)",
        "Singular values i^-decay.",
    ),
}


def write_markdown(figures: dict, path: Path) -> None:
    """One table per group of figures, with what was to be reached."""
    machine = figures["machine"]
    lines = [
        "# EVA's initialisation", "",
        f"`python -m perf.eva_init`, {machine['cores']} cores, {machine['threads']} threads,"
        f" torch {machine['torch']}; medians of the seconds that one thread computes, both sides in turn.", "",
    ]  # fmt: skip
    for part, (title, note) in TITLES.items():
        if part not in figures:
            continue
        lines += [f"## {title}", "", note, ""]
        if isinstance(figures[part], list):
            lines += [*_table(figures[part]), ""]
            continue
        for what, runs in figures[part].items():
            lines += [f"By {what}:", "", *_table(runs), ""]
    path.write_text("\n".join(lines).rstrip() + "\n")


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
