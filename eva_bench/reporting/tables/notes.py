"""The sentences below a table: how to read it, and where its numbers come from. No torch here."""

from __future__ import annotations

from collections.abc import Sequence

from eva_bench.reporting.archive import Run
from eva_bench.reporting.tables.selection import Selection

READING = (
    "Mean ± sample standard deviation over seeds. Bold: the best mean of a column, which says nothing about chance; "
    "differences with intervals and verdicts are in the tables of differences and statistics. An average is the "
    "mean of its tasks' means, and deviates over the seeds that all of them have."
)
PUBLISHED = "Published numbers as the papers print them, on the real tasks; in brackets ours minus published."
NO_REPRODUCTION = " At this scale model and data differ, so the difference is not a reproduction error."
POCKET = (
    "Pocket numbers show how the code and the methods behave on small stand-ins. "
    "They say nothing about the real benchmark."
)
AROUND = (
    "At half / at / at twice the rate: scores on validation data of the tuning tasks, mean over families; – where the "
    "grid has no such rate (tables of learning rates)."
)
APART = (
    "Left out of statistics, ranks, averages over families and claims, because they do not tell methods apart (table "
    "of tasks):"
)
PARTIAL = "In no statistic, because they have not every task:"


def notes(selection: Selection, measured: int, cells: int) -> list[str]:
    """How to read the table, its records, what is set aside, and what pocket numbers mean."""
    table, runs = selection.table, selection.used
    lines = [READING, f"{measured} of {cells} cells measured. {origin(runs)}", conditions(runs)]
    if table.statistics:
        lines.append(AROUND)
    if table.published:
        lines.append(PUBLISHED + ("" if selection.scale == "paper" else NO_REPRODUCTION))
    return [*lines, *table.notes, *caveats(selection)]


def caveats(selection: Selection) -> list[str]:
    """Tasks that enter no conclusion, what pocket numbers mean, and records that no cell shows."""
    lines = []
    apart = [column for column in selection.table.score_columns if not selection.tells(column)]
    if apart:
        why = ", ".join(f"{column.title} ({selection.judged[column.key].mark})" for column in apart)
        lines.append(f"{APART} {why}.")
    shown = [row for row in selection.table.rows if selection.measured(row)]
    if partial := [row.title for row in shown if row not in selection.compared]:
        lines.append(f"{PARTIAL} {', '.join(partial)}.")
    if selection.scale == "pocket":
        lines.append(POCKET)
    if selection.failed:
        names = ", ".join(sorted(run.run_id for run in selection.failed)[:5])
        more = " …" if len(selection.failed) > 5 else ""
        lines.append(f"{len(selection.failed)} runs failed and count as the lowest score of their task: {names}{more}.")
    if selection.aside:
        lines.append(f"{selection.aside} records with other settings or of other methods are set aside.")
    return lines


def origin(runs: Sequence[Run]) -> str:
    """Number of records, protocol, range of commits and of days."""
    protocols = sorted({run.protocol for run in runs})
    in_order = sorted(runs, key=lambda run: (run.finished or "", run.run_id))
    commits = list(dict.fromkeys((run.code.get("commit") or "unknown")[:10] for run in in_order))
    days = list(dict.fromkeys(run.finished[:10] for run in in_order if run.finished))
    text = f"{len(runs):,} records, protocol {', '.join(map(str, protocols))}, commits {' to '.join(_ends(commits))}"
    if len(commits) > 2:
        text += f" ({len(commits)})"
    if any(run.code.get("dirty") for run in runs):
        text += ", some with uncommitted changes"
    return f"{text}, finished {' to '.join(_ends(days))}." if days else f"{text}."


def conditions(runs: Sequence[Run]) -> str:
    """Model, training data, which tokens count in the loss, and the number of scored rows."""
    models = sorted({run.checkpoint for run in runs})
    data = sorted({run.data_name for run in runs})
    losses = sorted({_loss(run) for run in runs})
    rows = sorted({int(run.metrics["samples"]) for run in runs if "samples" in run.metrics})
    data_text = ", ".join(data) if len(data) < 4 else f"{len(data)} data sets"
    text = f"Model {', '.join(models)}; training data {data_text}; loss on {' / '.join(losses)}"
    return text + (f"; {' to '.join(f'{n:,}' for n in _ends(rows))} scored rows." if rows else ".")


def _loss(run: Run) -> str:
    if run.model_kind != "language":
        return {"classifier": "labels", "vision": "labels", "decision": "actions"}[run.model_kind]
    return "prompt and answer" if run.loss_on_prompt else "the answer only"


def _ends(values: Sequence) -> list:
    return [values[0], values[-1]] if len(values) > 1 else list(values)
