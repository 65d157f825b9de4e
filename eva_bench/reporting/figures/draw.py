"""`make figures`: results/figures from records alone, SVG and PDF, the same bytes every time. Never imports torch."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from eva_bench.records.record import Record
from eva_bench.records.store import Store
from eva_bench.reporting import statistics
from eva_bench.reporting.figures.layer_maps import draw_maps
from eva_bench.reporting.tables.cells import FACTS, Archive, Selection, select
from eva_bench.reporting.tables.spec import Column, read_table
from eva_bench.system.errors import UserError
from eva_bench.system.paths import CONF

STYLE = {
    "svg.hashsalt": "eva-bench", "svg.fonttype": "none", "pdf.fonttype": 42, "font.size": 9, "axes.spines.top": False,
    "axes.spines.right": False, "axes.titlesize": 10, "legend.frameon": False, "figure.constrained_layout.use": True,
}  # fmt: skip
COLOURS = {
    "full": "#444444", "lora": "#1f77b4", "lora_orthonormal": "#7fb6dd", "eva": "#d62728", "eva_rho1": "#f4938a", "pissa": "#2ca02c",
    "olora": "#9467bd", "sorsa": "#e8930c", "svfit": "#8c564b",
}  # fmt: skip
FIRST_STEPS = 50
REDISTRIBUTES = "eva"  # the method whose ranks differ between layers


@dataclass(frozen=True)
class Drawing:
    """A figure, its file name and what it shows in one or two sentences (alternative text)."""

    name: str
    figure: Figure
    caption: str


def drawings(archive: Archive) -> Iterator[Drawing]:
    """Every figure of every scale that has records. Raises UserError as select does."""
    overall = read_table(CONF / "table" / "overall.yaml")
    for scale in sorted({scale for scale, _ in archive.places()}):
        selection = select(archive, overall, scale, None)
        if not selection.used:
            continue
        families = families_of(selection)
        yield _intervals(selection, families)
        yield _pareto(selection, families)
        if (costs := _costs(selection)) is not None:
            yield costs
        for family, columns in families.items():
            yield _curves(selection, family, columns)
            yield from _maps(selection, family, columns)
        yield from _rho_maps(archive, scale)


def families_of(selection: Selection) -> dict[str, list[Column]]:
    """Family -> columns of scores that have any record."""
    by_task = {record.task: record.spec["task"]["family"] for record in selection.used}
    found: dict[str, list[Column]] = defaultdict(list)
    for column in selection.table.columns:
        if column.task in by_task:
            found[by_task[column.task]].append(column)
    return dict(found)


def _scores(selection: Selection, columns: Sequence[Column]) -> dict[str, dict[str, dict[int, float]]]:
    """Method -> column -> seed -> score, for methods with a score in every column."""
    found = {row.title: {c.title: selection.scores(row, c) for c in columns} for row in selection.table.rows}
    return {method: scores for method, scores in found.items() if all(scores.values())}


def _panels(count: int, width: float, height: float, most: int = 3) -> tuple[Figure, list]:
    columns = min(count, most)
    rows = -(-count // columns)
    figure = Figure(figsize=(width * columns, height * rows))
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for unused in axes[count:]:
        unused.set_visible(False)
    return figure, list(axes[:count])


def _intervals(selection: Selection, families: dict[str, list[Column]]) -> Drawing:
    groups = {**families, "all tasks": [c for columns in families.values() for c in columns]} if len(families) > 1 else families
    figure, axes = _panels(len(groups), 3.2, 2.6)
    for ax, (title, columns) in zip(axes, groups.items(), strict=True):
        scores = _scores(selection, columns)
        for y, (method, found) in enumerate(reversed(scores.items())):
            middle = 100 * float(statistics.interquartile_mean(statistics.pooled(found)))
            interval = statistics.iqm_interval(found)
            if interval:
                ax.plot([100 * interval[0], 100 * interval[1]], [y, y], color=COLOURS.get(method, "black"), linewidth=2)
            ax.plot(middle, y, "o", color=COLOURS.get(method, "black"), markersize=5)
        ax.set_yticks(range(len(scores)), list(reversed(scores)))
        ax.set_title(f"{title} ({_count(len(columns), 'score')})")
        ax.set_xlabel("interquartile mean, %")
    caption = "Interquartile mean of all runs of a family with its 95 % bootstrap interval over seeds; methods that lack a task are left out."
    return Drawing(f"intervals-{selection.scale}", figure, caption)


def _pareto(selection: Selection, families: dict[str, list[Column]]) -> Drawing:
    figure, axes = _panels(len(families), 3.2, 2.6)
    for ax, (family, columns) in zip(axes, families.items(), strict=True):
        points = []
        for method, found in _scores(selection, columns).items():
            row = next(row for row in selection.table.rows if row.title == method)
            records = [r for column in columns for r in selection.cells[row.title, column.task]]
            parameters = np.mean([record.trainable_parameters for record in records if record.trainable_parameters])
            points.append((parameters, 100 * statistics.task_mean(found), method))
            ax.plot(*points[-1][:2], "o", color=COLOURS.get(method, "black"), label=method)
        front = [p for p in sorted(points, key=lambda p: (p[0], -p[1])) if not any(q[0] <= p[0] and q[1] > p[1] for q in points)]
        ax.step([p[0] for p in front], [p[1] for p in front], where="post", color="#bbbbbb", linewidth=1, zorder=0)
        ax.set(xscale="log", title=family, xlabel="trained parameters", ylabel="mean score, %")
    _legend(figure, axes)
    caption = "Mean score of a family against trained parameters; the line joins the methods that no other beats with as few parameters."
    return Drawing(f"pareto-{selection.scale}", figure, caption)


def _costs(selection: Selection) -> Drawing | None:
    facts = {"init_share": "initialisation, % of training time", "init_peak_share": "peak memory, % of training's"}
    values = {fact: _by_method_and_family(selection, FACTS[fact]) for fact in facts}
    families = sorted({family for by_family in values["init_share"].values() for family in by_family})
    if not families:
        return None
    figure, axes = _panels(2, 4.2, 0.34 * len(values["init_share"]) + 1.2)
    for ax, (fact, label) in zip(axes, facts.items(), strict=True):
        methods = list(reversed(values[fact]))
        height = 0.8 / len(families)
        for i, family in enumerate(families):
            shown = [100 * values[fact][method].get(family, np.nan) for method in methods]
            ax.barh(np.arange(len(methods)) + 0.4 - height * (i + 0.5), shown, height, label=family, color=matplotlib.colormaps["tab10"](i))
        ax.set_yticks(range(len(methods)), methods)
        ax.set_xlabel(label)
    _legend(figure, axes)
    caption = "What the start costs: seconds as a share of the training that follows, and peak memory of the process against the peak in training."
    return Drawing(f"costs-{selection.scale}", figure, caption)


def _by_method_and_family(selection: Selection, fact: Callable[[Record], float | None]) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, list[float]]] = {row.title: defaultdict(list) for row in selection.table.rows}
    for row in selection.table.rows:
        for record in selection.records(row):
            if row.title != "full" and (value := fact(record)) is not None:
                found[row.title][record.spec["task"]["family"]].append(value)
    return {method: {family: float(np.mean(v)) for family, v in by.items()} for method, by in found.items() if by}


def _curves(selection: Selection, family: str, columns: Sequence[Column]) -> Drawing:
    figure, axes = _panels(2, 4.2, 2.9)
    for row in selection.table.rows:
        records = [r for task in dict.fromkeys(c.task for c in columns) for r in selection.cells.get((row.title, task), []) if r.curve]
        if not records:
            continue
        steps = sorted(set.intersection(*({int(point[0]) for point in r.curve if point[0] <= FIRST_STEPS} for r in records)))
        for ax, index in zip(axes, (1, 2), strict=True):
            by_seed: dict[int, list] = defaultdict(list)  # seed -> one curve per task
            for record in records:
                at = {int(point[0]): point[index] for point in record.curve}
                by_seed[record.seed].append([at[step] for step in steps])
            lines = np.array([np.mean(curves, axis=0) for _, curves in sorted(by_seed.items())])  # (seeds, steps)
            middle, spread = lines.mean(0), lines.std(0, ddof=1) if len(lines) > 1 else 0
            ax.plot(steps, middle, color=COLOURS.get(row.method, "black"), linewidth=1.3, label=row.title)
            ax.fill_between(steps, middle - spread, middle + spread, color=COLOURS.get(row.method, "black"), alpha=0.15, linewidth=0)
    for ax, label in zip(axes, ("training loss", "gradient norm before clipping"), strict=True):
        ax.set(xlabel="step", ylabel=label, title=family)
    axes[1].set_yscale("log")
    _legend(figure, axes)
    caption = f"The first {FIRST_STEPS} steps of training on {family}: mean over its tasks and seeds, band: standard deviation over seeds."
    return Drawing(f"curves-{selection.scale}-{family}", figure, caption)


def _maps(selection: Selection, family: str, columns: Sequence[Column]) -> Iterator[Drawing]:
    """Ranks and explained variance per layer; one panel per task where they are few, else their mean."""
    tasks = [task for task in dict.fromkeys(c.task for c in columns) if (REDISTRIBUTES, task) in selection.cells]
    cells = {task: selection.cells[REDISTRIBUTES, task] for task in tasks}
    groups = cells if len(tasks) <= 8 else {f"{family}, mean of {len(tasks)} tasks": [r for cell in cells.values() for r in cell]}
    if (figure := draw_maps({title: [r.ranks for r in cell] for title, cell in groups.items()}, "rank")) is not None:
        yield Drawing(f"ranks-{selection.scale}-{family}", figure, f"EVA's rank per layer and kind of weight on {family}, mean over seeds.")
    variance = {title: [r.initialisation.get("explained_variance", {}) for r in cell] for title, cell in groups.items()}
    if (figure := draw_maps(variance, "explained variance", 0, 1)) is not None:
        caption = f"Share of the input's variance that EVA's directions explain, per layer and kind of weight on {family}, mean over seeds."
        yield Drawing(f"variance-{selection.scale}-{family}", figure, caption)


def _rho_maps(archive: Archive, scale: str) -> Iterator[Drawing]:
    """Ranks by rho, where the suite `rho` has been run."""
    table = read_table(CONF / "table" / "rho.yaml")
    for model in sorted({model for place, model in archive.places() if place == scale}):
        selection = select(archive, table, scale, model)
        if selection.compares:
            figure = draw_maps({row.title: [r.ranks for r in selection.records(row)] for row in table.rows if selection.records(row)}, "rank")
            if figure is not None:
                yield Drawing(f"ranks_rho-{scale}-{model}", figure, f"EVA's rank per layer by rho, {model}, mean over seeds.")


def _legend(figure: Figure, axes: list) -> None:
    found = {label: handle for ax in axes for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    figure.legend(found.values(), found, loc="outside lower center", ncols=min(len(found), 5))


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"


def save(drawing: Drawing, path: Path) -> None:
    """Write one file, its kind by the suffix, without dates: the same figure has the same bytes. Raises OSError."""
    dates = {".svg": {"Date": None}, ".pdf": {"CreationDate": None, "ModDate": None}}
    drawing.figure.savefig(path, metadata=dates[path.suffix])


def main(arguments: Sequence[str] | None = None) -> int:
    """Write results/figures/<name>.{svg,pdf}; figures that no longer exist go."""
    results = Path(next(iter(sys.argv[1:] if arguments is None else arguments), "results"))
    folder = results / "figures"
    written = set()
    try:
        with matplotlib.rc_context(STYLE):
            for drawing in drawings(Archive(Store(results).read_all())):
                folder.mkdir(parents=True, exist_ok=True)
                for path in (folder / f"{drawing.name}.svg", folder / f"{drawing.name}.pdf"):
                    save(drawing, path)
                    written.add(path)
        for path in folder.glob("*") if written else ():
            if path.suffix in (".svg", ".pdf") and path not in written:
                path.unlink()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: figures cannot be written to '{folder}': {error.strerror}.", file=sys.stderr)
        return 2
    print(f"{len(written) // 2} figures in {folder}" if written else f"no figures: {results / 'records'} holds no finished runs")
    return 0


if __name__ == "__main__":
    sys.exit(main())
