"""Tables from records alone: Markdown, CSV and LaTeX, published numbers beside ours. Never imports torch."""

from __future__ import annotations

import csv
import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import yaml

from eva_bench.errors import UserError, did_you_mean
from eva_bench.record import Record
from eva_bench.spec import CONF, ROOT, fingerprint
from eva_bench.store import Store

# Overrides that choose a cell, or say where and how to run; any other makes a run a private experiment.
CELL_OVERRIDES = {
    "method", "task", "scale", "model", "seed", "stage", "suite", "tracking", "threads", "wait", "force", "results_dir",
    "runs_dir", "train.checkpoint_minutes",
}  # fmt: skip
MISSING = "–"


@dataclass(frozen=True)
class Value:
    """Mean and sample standard deviation of a metric over seeds."""

    mean: float
    std: float | None
    n: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Value | None:
        if not values:
            return None
        return cls(mean(values), stdev(values) if len(values) > 1 else None, len(values))


@dataclass
class Table:
    """A finished table: rows of strings, already formatted for reading, and the sentences below it."""

    title: str
    header: list[str]
    rows: list[list[str]]
    notes: list[str]
    best: set[tuple[int, int]]  # (row, column) of the best mean of a column


def build_table(name: str, table: dict[str, Any], records: Iterable[Record], scale: str, model: str) -> Table | None:
    """The table of one scale and model, or None where no record exists.

    Raises:
        UserError: the table names a metric that no record has.
    """
    cells, aside = _cells(records, table, scale, model)
    if not cells:
        return None
    columns = table["columns"]
    for column in columns:
        known = {metric for cell in cells.values() for record in cell for metric in record.metrics}
        if column["metric"] not in known:
            raise UserError(f"conf/table/{name}.yaml: unknown metric '{column['metric']}'.{did_you_mean(column['metric'], known)}")
    published = [_published(block) for block in table["published"]]
    header = ["method", *(c["title"] for c in columns), "seeds", "parameters", "init s", "train s", *(b["title"] for b in table["published"])]
    untrained = next(iter(cells.values()))[0].metrics_before
    rows = [["untrained", *(_format(Value.of([untrained[c["metric"]]]), c["percent"]) for c in columns)]]
    rows[0] += [MISSING] * (len(header) - len(rows[0]))
    means: dict[int, list[tuple[float, int]]] = defaultdict(list)
    for method in table["methods"]:
        cell = cells.get(method, [])
        row = [method]
        for index, column in enumerate(columns, start=1):
            value = Value.of([record.metrics[column["metric"]] for record in cell])
            if value is not None:
                means[index].append((value.mean if column["best"] == "max" else -value.mean, len(rows)))
            row.append(_format(value, column["percent"]))
        row += [str(len(cell)), *_costs(cell)]
        rows.append(row + [source.get(method, MISSING) for source in published])
    best = {(row, index) for index, found in means.items() for value, row in found if value == max(found)[0]}
    return Table(f"{table['title']}, scale={scale}, {model}", header, rows, _notes(cells, scale, aside), best)


def _cells(records: Iterable[Record], table: dict, scale: str, model: str) -> tuple[dict[str, list[Record]], int]:
    """Records per method that differ in nothing but the seed; of several settings the one finished last."""
    groups: dict[str, dict[str, list[Record]]] = defaultdict(lambda: defaultdict(list))
    aside = 0
    for record in records:
        where = (record.task, record.scale, record.spec["model"]["name"], record.status)
        if where != (table["task"], scale, model, "ok"):
            continue
        if _is_private(record) or record.spec["stage"] != "final" or record.method not in table["methods"]:
            aside += record.spec["stage"] == "final"
            continue
        settings = fingerprint({key: value for key, value in record.spec.items() if key != "seed"})
        groups[record.method][settings].append(record)
    cells = {}
    for method, by_settings in groups.items():
        latest = max(by_settings.values(), key=lambda found: max(record.finished or "" for record in found))
        cells[method] = sorted(latest, key=lambda record: record.seed)
        aside += sum(len(found) for found in by_settings.values()) - len(latest)
    return cells, aside


def _is_private(record: Record) -> bool:
    """Whether a run changed more than the cell: then it is somebody's experiment, not part of the benchmark.

    Local files are no change where they are exactly the pinned ones (scales lite and paper).
    """
    overrides = {item.split("=")[0].lstrip("+~") for item in record.origins.get("command_line", [])} - CELL_OVERRIDES
    if record.scale != "pocket" and record.spec["identity"]["data"].get("as_pinned"):
        overrides -= {"data.root"}
    return bool(overrides)


def _costs(cell: list[Record]) -> list[str]:
    """Trained parameters, and the mean seconds of initialisation and training where they were computed."""
    if not cell:
        return [MISSING] * 3
    counts = sorted({record.trainable_parameters for record in cell})
    parameters = f"{counts[0]:,}" if len(counts) == 1 else f"{counts[0]:,} to {counts[-1]:,}"
    seconds = []
    for phase in ("init", "train"):
        measured = [r.costs[phase]["seconds"] for r in cell if phase in r.costs and not r.reused.get(phase)]
        seconds.append(f"{mean(measured):.1f}" if measured else MISSING)
    return [parameters, *seconds]


def _format(value: Value | None, percent: bool) -> str:
    if value is None:
        return MISSING
    factor, digits = (100, 1) if percent else (1, 3)
    text = f"{value.mean * factor:.{digits}f}"
    return text if value.std is None else f"{text} ± {value.std * factor:.{digits}f}"


def _published(block: dict[str, Any]) -> dict[str, str]:
    """Our method names -> `mean ± std` as printed in the paper."""
    path = ROOT / "results" / "published" / f"{block['where']['paper']}.csv"
    with path.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if all(row[key] == str(value) for key, value in block["where"].items())]
    found = {}
    for ours, theirs in block["methods"].items():
        for row in rows:
            if row["method"] == theirs:
                found[ours] = row["value"] + (f" ± {float(row['std']):g}" if row["std"] else "")
    if missing := set(block["methods"]) - set(found):
        raise UserError(f"{path.name} has no row for {', '.join(sorted(missing))} of '{block['title']}'.")
    return found


def _notes(cells: dict[str, list[Record]], scale: str, aside: int) -> list[str]:
    records = [record for cell in cells.values() for record in cell]
    first = records[0].spec
    commits = sorted({(record.code.get("commit") or "unknown")[:10] for record in records})
    loss = "prompt and answer" if first["train"]["loss_on_prompt"] else "the answer only"
    notes = [
        "Mean ± sample standard deviation over seeds; the best mean of a column is bold. "
        "Published numbers are percent exact match on the real GSM8K, as printed in the papers.",
        f"{len(records)} records, protocol {first['protocol']}, commits {', '.join(commits)}; model "
        f"{first['identity']['model']['checkpoint']}, training data {first['identity']['data']['name']}, "
        f"loss on {loss}, {records[0].metrics.get('samples', 0):.0f} test problems.",
    ]
    if scale == "pocket":
        notes.append("Pocket numbers show how the code and the methods behave on small stand-ins. They say nothing about the real benchmark.")
    if aside:
        notes.append(f"{aside} records with other settings or of other methods are set aside.")
    return notes


def to_markdown(table: Table) -> str:
    lines = [f"# {table.title}", "", "| " + " | ".join(table.header) + " |", "|" + " --- |" * len(table.header)]
    for r, row in enumerate(table.rows):
        lines.append("| " + " | ".join(f"**{cell}**" if (r, c) in table.best else cell for c, cell in enumerate(row)) + " |")
    return "\n".join([*lines, "", *(f"{note}  " for note in table.notes)]).rstrip() + "\n"


LATEX = {"±": r"$\pm$", "–": "--", "%": r"\%", "_": r"\_", "&": r"\&", "#": r"\#"}


def to_latex(table: Table) -> str:
    def escape(text: str) -> str:
        return "".join(LATEX.get(character, character) for character in text)

    lines = [rf"\begin{{tabular}}{{l{'r' * (len(table.header) - 1)}}}", r"\toprule"]
    lines += [" & ".join(map(escape, table.header)) + r" \\", r"\midrule"]
    for r, row in enumerate(table.rows):
        cells = [rf"\textbf{{{escape(cell)}}}" if (r, c) in table.best else escape(cell) for c, cell in enumerate(row)]
        lines.append(" & ".join(cells) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", *(f"% {note}" for note in table.notes)]) + "\n"


def write_csv(table: Table, path: Path) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows([table.header, *table.rows])


def main(arguments: Sequence[str] | None = None) -> int:
    """Write results/tables/<table>-<scale>.{md,csv,tex} for every table in conf/table."""
    results = Path(next(iter(sys.argv[1:] if arguments is None else arguments), "results"))
    records = list(Store(results).read_all())
    folder = results / "tables"
    written = 0
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path in sorted((CONF / "table").glob("*.yaml")):
            spec = yaml.safe_load(path.read_text())
            for scale, model in sorted({(record.scale, record.spec["model"]["name"]) for record in records}):
                table = build_table(path.stem, spec, records, scale, model)
                if table is None:
                    continue
                base = folder / f"{path.stem}-{scale}-{model}"
                base.with_suffix(".md").write_text(to_markdown(table), encoding="utf-8")
                base.with_suffix(".tex").write_text(to_latex(table), encoding="utf-8")
                write_csv(table, base.with_suffix(".csv"))
                print(to_markdown(table))
                written += 1
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: tables cannot be written to '{folder}': {error.strerror}.", file=sys.stderr)
        return 2
    if not written:
        print(f"no tables: {results / 'records'} holds no finished runs of a table (python run.py method=eva task=gsm8k makes one)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
