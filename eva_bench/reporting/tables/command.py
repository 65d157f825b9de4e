"""`make tables`: results/tables from results/records. No torch here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from pydantic import Field

from eva_bench.reporting.archive import Archive, Run
from eva_bench.reporting.tables.agreement import build_agreement
from eva_bench.reporting.tables.build import assemble
from eva_bench.reporting.tables.cells import select
from eva_bench.reporting.tables.differences import build_differences
from eva_bench.reporting.tables.formats import to_csv, to_latex, to_markdown, to_numbers
from eva_bench.reporting.tables.own import build_own, own_runs, reasons
from eva_bench.reporting.tables.rates import build_rates
from eva_bench.reporting.tables.selection import Selection
from eva_bench.reporting.tables.sensitivity import build_sensitivity
from eva_bench.reporting.tables.spec import TableSpec, read_tables
from eva_bench.reporting.tables.summary import build_pairs, build_summary
from eva_bench.reporting.tables.table import Table
from eva_bench.reporting.tables.tasks import build_tasks
from eva_bench.system.arguments import Arguments, run_command
from eva_bench.system.errors import UserError

FORMATS = {"md": to_markdown, "tex": to_latex, "csv": to_csv}


def selections(archive: Archive, specs: Sequence[TableSpec]) -> Iterator[tuple[Selection, str | None]]:
    """Every table at every scale (and model, unless it spans models) that has something to compare.

    Raises:
        UserError: see select.
    """
    for spec in specs:
        pairs = [(scale, None) for scale in archive.scales()] if spec.across_models else archive.scales_and_models()
        for scale, model in pairs:
            selection = select(archive, spec, scale, model)
            if selection.compares:
                yield selection, model


def all_tables(archive: Archive, specs: Sequence[TableSpec] | None = None) -> tuple[list[Table], list[Run]]:
    """All tables and their statistics, and the own runs that are shown apart. Raises UserError."""
    found = []
    used: set[str] = set()
    specs = read_tables() if specs is None else specs
    for selection, model in selections(archive, specs):
        found.append(assemble(selection, model))
        used |= {run.run_id for run in selection.used}
        if selection.table.statistics:
            more: list[Table | None] = [
                build(selection, model) for build in (build_differences, build_summary, build_pairs)
            ]
            more.append(build_sensitivity(selection, model))
            found += [table for table in more if table and table.lines]
    found += [table for spec in specs if (table := build_agreement(spec, archive))]
    found += [table for scale in archive.scales() if (table := build_tasks(archive, scale))]
    found += [table for scale in archive.scales() for table in build_rates(archive, scale)]
    own = own_runs(archive.runs, used)
    return found + build_own(own), own


def write_tables(tables: Sequence[Table], folder: Path) -> None:
    """Every table in every format, and numbers.tex; files of tables that are no longer there go. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    contents = {f"{table.file}.{suffix}": text(table) for table in tables for suffix, text in FORMATS.items()}
    contents["numbers.tex"] = to_numbers(tables)
    for name, content in contents.items():
        (folder / name).write_text(content, encoding="utf-8")
    for path in folder.iterdir():
        if path.suffix[1:] in FORMATS and path.name not in contents:
            path.unlink()


class TablesArguments(Arguments):
    """Write every table of conf/table that has records.

    The files are <results>/tables/<table>-<scale>-<model>.{md,csv,tex}, and numbers.tex.
    make tables ARGS="results_dir=mine"
    """

    results_dir: Path = Field(Path("results"), description="folder of the records and of the tables")


def tables(arguments: TablesArguments) -> int:
    """Write all tables. Raises UserError."""
    results = arguments.results_dir
    folder = results / "tables"
    archive = Archive.load(results)
    found, own = all_tables(archive)
    if not found:
        elsewhere = "" if results == Path("results") else f" results_dir={results}"
        hint = f"python run.py method=eva task=gsm8k{elsewhere} makes one"
        print(f"no tables: {results / 'records'} holds no finished runs of a table ({hint})")
        return 0
    try:
        write_tables(found, folder)
    except OSError as error:
        raise UserError(f"tables cannot be written to '{folder}': {error.strerror}.") from error
    print("\n".join(f"{folder / table.file}.md: {table.title}" for table in found))
    for scale, count in sorted(archive.older.items()):
        print(f"{count} records at scale {scale} are set aside: they are of another protocol than its results")
    if own:
        runs = "1 finished run is" if len(own) == 1 else f"{len(own)} finished runs are"
        print(f"{runs} shown apart, as own runs, because of {reasons(own)}")
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m eva_bench.reporting.tables [results_dir=...]`."""
    return run_command(tables, TablesArguments, arguments)
