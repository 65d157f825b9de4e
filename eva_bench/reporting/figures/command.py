"""`make figures`: results/figures from records alone, the same bytes every time. Never imports torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import matplotlib
from pydantic import Field

from eva_bench.reporting.archive import Archive
from eva_bench.reporting.figures.agreement import draw_agreement
from eva_bench.reporting.figures.costs import draw_costs
from eva_bench.reporting.figures.layer_maps import draw_layers, draw_rho
from eva_bench.reporting.figures.rates import draw_rates
from eva_bench.reporting.figures.scores import draw_differences, draw_pareto, draw_ranks, families_of
from eva_bench.reporting.figures.style import STYLE, Drawing
from eva_bench.reporting.figures.training import draw_curves
from eva_bench.reporting.tables.cells import select
from eva_bench.reporting.tables.own import own_runs
from eva_bench.reporting.tables.selection import Selection
from eva_bench.reporting.tables.spec import read_table, read_tables
from eva_bench.system.arguments import Arguments, run_command
from eva_bench.system.errors import UserError
from eva_bench.system.paths import CONF

SUFFIXES = (".svg", ".pdf")
DATES = {".svg": {"Date": None}, ".pdf": {"CreationDate": None, "ModDate": None}}  # left out: same figure, same bytes


def drawings(archive: Archive) -> Iterator[Drawing]:
    """Every figure of every scale that has records. Raises UserError as select does."""
    overall = read_table(CONF / "table" / "overall.yaml")
    for scale in archive.scales():
        selection = select(archive, overall, scale, None)
        if selection.used:
            yield from _comparisons(selection)
        yield from draw_rates(archive, scale)
        yield from draw_rho(archive, scale)
    yield from filter(None, (draw_agreement(archive, table) for table in read_tables()))


def _comparisons(selection: Selection) -> Iterator[Drawing]:
    families = families_of(selection)
    some = [draw_differences(selection, families), draw_ranks(selection), draw_costs(selection)]
    yield from filter(None, some)
    yield from draw_pareto(selection, families)
    for family, columns in families.items():
        yield draw_curves(selection, family, columns)
        yield from draw_layers(selection, family, columns)


def write_figures(archive: Archive, folder: Path) -> int:
    """Write every figure as SVG and PDF; files of figures that no longer exist go.

    Returns:
        The number of figures.

    Raises:
        UserError: see `drawings`.
        OSError: a file cannot be written.
    """
    written = set()
    with matplotlib.rc_context(STYLE):
        for drawing in drawings(archive):
            folder.mkdir(parents=True, exist_ok=True)
            for suffix in SUFFIXES:
                path = folder / f"{drawing.name}{suffix}"
                drawing.figure.savefig(path, metadata=DATES[suffix])
                drawing.figure.set_layout_engine("none")  # laid out once, for both formats
                written.add(path)
    for path in folder.glob("*") if written else ():
        if path.suffix in SUFFIXES and path not in written:
            path.unlink()
    return len(written) // len(SUFFIXES)


class FiguresArguments(Arguments):
    """Draw every figure from the records: <results>/figures, as SVG and PDF.

    make figures ARGS="results_dir=mine"
    """

    results_dir: Path = Field(Path("results"), description="folder of the records and of the figures")


def figures(arguments: FiguresArguments) -> int:
    """Draw all figures. Raises UserError."""
    results = arguments.results_dir
    folder = results / "figures"
    try:
        archive = Archive.load(results)
        count = write_figures(archive, folder)
    except OSError as error:
        raise UserError(f"figures cannot be written to '{folder}': {error.strerror}.") from error
    if count:
        print(f"{count} figures in {folder}")
    else:
        own = len(own_runs(archive.runs, ()))
        there = f", and {own} of your own, which tables and report show" if own else ""
        print(f"no figures: {results / 'records'} holds no finished runs of the benchmark{there}")
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m eva_bench.reporting.figures [results_dir=...]`."""
    return run_command(figures, FiguresArguments, arguments)
