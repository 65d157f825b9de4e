"""What training did to the models, for the page: forgetting, and what is in results/probes. No torch here."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from statistics import mean
from typing import Any

from eva_bench.reporting.archive import Run
from eva_bench.reporting.page.blocks import short
from eva_bench.reporting.tables.facts import FACTS


def probe_tables(runs: Iterable[Run]) -> list[dict[str, Any]]:
    """A table per scale and probe: a line per method and family, the mean of every number over its runs; no sweeps.

    Own runs, with settings that no recipe or suite has, are in tables of their own.
    """
    found: dict[tuple[str, str, str], dict[tuple[str, str], list[dict[str, float]]]]
    found = defaultdict(lambda: defaultdict(list))
    for run in runs:
        if (run.status, run.stage) != ("ok", "final"):
            continue
        own = f", own runs with other {', '.join(sorted(run.private_overrides))}" if run.private_overrides else ""
        measured = {
            name: {k: v for k, v in summary.items() if v is not None and "=" not in k}  # a sweep stays in its file
            for name, summary in run.probes.items()
        }
        if (forgotten := FACTS["forgetting"](run)) is not None:
            measured["forgetting"] = {"log of the ratio of losses": forgotten}
            if (name := "forgetting/accuracy") in run.metrics and name in run.metrics_before:
                measured["forgetting"]["lost points"] = 100 * (run.metrics_before[name] - run.metrics[name])
        for probe, numbers in measured.items():
            found[run.scale, probe, own][run.method, run.family].append(numbers)
    return [_table(f"{probe}, scale {scale}{own}", groups) for (scale, probe, own), groups in sorted(found.items())]


def _table(title: str, groups: dict[tuple[str, str], list[dict[str, float]]]) -> dict[str, Any]:
    names = list(dict.fromkeys(name for found in groups.values() for numbers in found for name in numbers))
    rows = []
    for (method, family), found in sorted(groups.items()):
        values = [[numbers[name] for numbers in found if name in numbers] for name in names]
        rows.append([method, family, len(found), *(short(mean(each)) if each else None for each in values)])
    return {"title": title, "header": ["method", "family", "runs", *names], "rows": rows}
