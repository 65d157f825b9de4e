"""One's own runs: finished runs that no table of the benchmark takes, with what sets them apart. No torch here."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from statistics import mean, stdev

from eva_bench.reporting.archive import Run
from eva_bench.reporting.tables.table import Cell, Line, Table

HEADER = ["task", "own settings", "model", "training data", "seeds", "metric", "before", "after"]
NOTE = "Runs with settings, a model or data of one's own: shown apart, never mixed with the benchmark's cells."


def own_runs(runs: Sequence[Run], used: Collection[str]) -> list[Run]:
    """Finished runs on test data, of no suite, that differ from the benchmark's and enter none of its tables.

    Args:
        runs: all runs.
        used: ids of the runs that tables use.
    """
    return [
        run
        for run in runs
        if (run.status, run.stage, run.origins.suite) == ("ok", "final", None)
        and run.private_overrides
        and run.run_id not in used
    ]


def reasons(runs: Sequence[Run]) -> str:
    """What sets runs apart, the most frequent first: `data.root (2), train.lr (1)`."""
    counts = Counter(name for run in runs for name in run.private_overrides)
    return ", ".join(
        f"{name} ({count})" for name, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    )


def build_own(runs: Sequence[Run]) -> list[Table]:
    """A table per scale, a line per method and settings, the mean over seeds ± standard deviation."""
    by_scale: dict[str, dict[tuple[str, str, str], list[Run]]] = defaultdict(lambda: defaultdict(list))
    for run in runs:
        by_scale[run.scale][run.method, run.task, run.settings_key].append(run)
    return [
        Table("own", scale, None, f"Own runs, scale={scale}", ["method", *HEADER], _lines(groups), [NOTE])
        for scale, groups in sorted(by_scale.items())
    ]


def _lines(groups: dict[tuple[str, str, str], list[Run]]) -> list[Line]:
    lines = []
    for (method, task, _), runs in sorted(groups.items()):
        first = runs[0]
        texts = [task, _own_settings(first), first.checkpoint, first.data_name, str(len(runs)), first.primary]
        before, after = (_score([scores.get(first.primary) for scores in pairs]) for pairs in _scores(runs))
        lines.append(Line(method, [*(Cell(text) for text in texts), before, after]))
    return lines


def _scores(runs: Sequence[Run]) -> tuple[list[dict[str, float]], list[dict[str, float]]]:
    return [run.metrics_before for run in runs], [run.metrics for run in runs]


def _own_settings(run: Run) -> str:
    typed = [item for item in run.command_line if item.split("=")[0].lstrip("+~") in run.private_overrides]
    return " ".join(typed)


def _score(values: Sequence[float | None]) -> Cell:
    known = [100 * value for value in values if value is not None]
    if not known:
        return Cell()
    spread = f" ± {stdev(known):.1f}" if len(known) > 1 else ""
    return Cell(f"{mean(known):.1f}{spread}", mean(known))
