"""The sentences below a table: how to read it, and where its numbers come from. No torch here."""

from __future__ import annotations

from collections.abc import Sequence

from eva_bench.records.record import Record
from eva_bench.reporting.tables.cells import Selection


def notes(selection: Selection, measured: int, cells: int) -> list[str]:
    """How to read the table, its records, what is set aside, and what pocket numbers mean."""
    table, records = selection.table, selection.used
    lines = [
        "Mean ± sample standard deviation over seeds. Bold: the best mean of a column. Underlined: not told apart from it (paired t "
        "test over the common seeds, for an average over all pairs of task and seed; Holm's correction over the rows; p ≥ 0.05). "
        "An average is taken over tasks first, then over seeds.",
        f"{measured} of {cells} cells measured. {origin(records)}",
        conditions(records),
    ]
    if table.published:
        lines.append(
            "Published numbers as the papers print them, on the real tasks; in brackets ours minus published."
            + ("" if selection.scale == "paper" else " At this scale model and data are others: the bracket is no reproduction error.")
        )
    lines += [*table.notes, *caveats(selection)]
    return lines


def caveats(selection: Selection) -> list[str]:
    """What pocket numbers mean, and records that no cell shows."""
    lines = []
    if selection.scale == "pocket":
        lines.append("Pocket numbers show how the code and the methods behave on small stand-ins. They say nothing about the real benchmark.")
    if selection.failed:
        names = ", ".join(sorted(record.run_id for record in selection.failed)[:5])
        lines.append(f"{len(selection.failed)} runs failed and have no score: {names}{' …' if len(selection.failed) > 5 else ''}.")
    if selection.aside:
        lines.append(f"{selection.aside} records with other settings or of other methods are set aside.")
    return lines


def origin(records: Sequence[Record]) -> str:
    """Number of records, protocol, range of commits and of days."""
    protocols = sorted({record.spec["protocol"] for record in records})
    in_order = sorted(records, key=lambda record: (record.finished or "", record.run_id))
    commits = list(dict.fromkeys((record.code.get("commit") or "unknown")[:10] for record in in_order))
    days = list(dict.fromkeys(record.finished[:10] for record in in_order if record.finished))
    text = f"{len(records):,} records, protocol {', '.join(map(str, protocols))}, commits {' to '.join(_ends(commits))}"
    if len(commits) > 2:
        text += f" ({len(commits)})"
    if any(record.code.get("dirty") for record in records):
        text += ", some with uncommitted changes"
    return f"{text}, finished {' to '.join(_ends(days))}." if days else f"{text}."


def conditions(records: Sequence[Record]) -> str:
    """Model, training data, which tokens count in the loss, and the number of scored rows."""
    models = sorted({record.spec["identity"]["model"]["checkpoint"] for record in records})
    data = sorted({record.spec["identity"]["data"]["name"] for record in records})
    losses = sorted({_loss(record) for record in records})
    rows = sorted({int(record.metrics["samples"]) for record in records if "samples" in record.metrics})
    text = f"Model {', '.join(models)}; training data {', '.join(data) if len(data) < 4 else f'{len(data)} data sets'}; loss on {' / '.join(losses)}"
    return text + (f"; {' to '.join(f'{n:,}' for n in _ends(rows))} scored rows." if rows else ".")


def _loss(record: Record) -> str:
    if record.spec["model"].get("kind", "language") != "language":
        return {"classifier": "labels", "vision": "labels", "decision": "actions"}[record.spec["model"]["kind"]]
    return "prompt and answer" if record.spec["train"]["loss_on_prompt"] else "the answer only"


def _ends(values: Sequence) -> list:
    return [values[0], values[-1]] if len(values) > 1 else list(values)
