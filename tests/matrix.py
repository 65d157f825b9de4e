"""docs/matrix.md from what `make matrix` ran: every task at every scale, from `make fetch` to a record."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from xml.etree import ElementTree

from eva_bench.system.files import write_atomically
from tests.conftest import ROOT
from tests.e2e.test_fetch_and_run import CELLS, recipe_of

PAGE = ROOT / "docs" / "matrix.md"
SCALES = ("small", "lite", "paper")
TEST = "test_what_fetch_brings_is_what_the_run_needs"
HEAD = """# What was run at which scale

For every task and scale a tick says: from an empty data folder, `make fetch` brought data and model from a stand-in
hub on the same machine (rows in the true columns and files, small random checkpoints of the true architectures and
tokenizers), and two steps of training, evaluation and record followed without a download. A cross says that it
failed, an empty cell that it was not run, a dash that there is no such recipe. A recipe other than the task's own is in
brackets. `make matrix` runs all of them and writes this page; the tests run one cell of every recipe and loader.
"""


def passed(report: Path) -> dict[str, bool]:
    """Cells of a JUnit report by their name in the test, and whether they passed."""
    cases = ElementTree.parse(report).iter("testcase")
    named = ((re.fullmatch(rf"{TEST}\[(.+)\]", case.get("name", "")), case) for case in cases)
    return {match[1]: not len(case.findall("failure") + case.findall("error")) for match, case in named if match}


def rows() -> list[tuple[str, str]]:
    """Task and further recipe of every row, in the order of the cells."""
    return sorted({(task, recipe) for _, task, recipe in CELLS})


def page(outcomes: dict[str, bool]) -> str:
    """The page; a cell that was not run is empty, one that does not exist has a dash."""
    lines = [HEAD, f"| task | {' | '.join(SCALES)} |", f"| --- |{' --- |' * len(SCALES)}"]
    for task, recipe in rows():
        marks = []
        for scale in SCALES:
            name = " ".join(filter(None, (scale, task, recipe)))
            found = {True: "✓", False: "✗", None: ""}[outcomes.get(name)]
            marks.append(found if (scale, task, recipe) in CELLS else "-")
        own = f" (`{recipe_of('', task, recipe)}`)" if recipe else ""
        lines.append(f"| {task}{own} | {' | '.join(marks)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """`python -m tests.matrix <JUnit reports>`."""
    outcomes = {name: ok for report in sys.argv[1:] for name, ok in passed(Path(report)).items()}
    write_atomically(PAGE, page(outcomes))
    print(f"{PAGE.relative_to(ROOT)}: {sum(outcomes.values())} of {len(CELLS)} cells passed")


if __name__ == "__main__":
    main()
