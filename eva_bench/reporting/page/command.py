"""Write results/report/index.html. No torch here."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from pydantic import Field

from eva_bench.reporting.archive import Archive
from eva_bench.reporting.page.content import content
from eva_bench.system.arguments import Arguments, run_command
from eva_bench.system.errors import UserError
from eva_bench.system.files import write_atomically
from eva_bench.system.paths import runs_beside

HERE = Path(__file__).parent
# In this order; the libraries' licences are beside them. D3 and Observable Plot: small multiples, intervals and labels
# in a few lines, drawn as SVG that prints, scales and can be saved (uPlot draws on a canvas and only over time).
SCRIPTS = [
    *("vendor/d3-7.9.2.min.js", "vendor/plot-0.6.17.min.js", "js/data.js", "js/charts.js", "js/tables.js"),
    *("js/overview.js", "js/compare.js", "js/rates.js", "js/claims.js", "js/runs.js", "js/main.js"),
]


def render(archive: Archive, runs_dir: Path) -> str:
    """The whole page as text.

    Args:
        archive: all records.
        runs_dir: where samples are read from, if they are there.
    """
    loader = FileSystemLoader(HERE)
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    scripts = [(HERE / name).read_text(encoding="utf-8") for name in SCRIPTS]
    hashes = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    own = {"css": (HERE / "page.css").read_text(encoding="utf-8"), "scripts": scripts, "hashes": hashes}
    return environment.get_template("page.html.j2").render(**content(archive, runs_dir), **own)


class PageArguments(Arguments):
    """Make one page from the records: <results>/report/index.html, which opens in any browser without a server.

    make report ARGS="results_dir=mine"
    """

    results_dir: Path = Field(Path("results"), description="folder of the records and of the page")
    runs_dir: Path | None = Field(None, description="where sample answers are; null: where these runs leave them")


def write_page(arguments: PageArguments) -> int:
    """Make the page. Raises UserError."""
    page = arguments.results_dir / "report" / "index.html"
    runs_dir = arguments.runs_dir or Path(runs_beside(str(arguments.results_dir)))
    text = render(Archive.load(arguments.results_dir), runs_dir)
    try:
        write_atomically(page, text)
    except OSError as error:
        raise UserError(f"the report cannot be written to '{page}': {error.strerror}.") from error
    print(f"{page} ({len(text) / 1e6:.1f} MB): open it in any browser")
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m eva_bench.reporting.page [results_dir=...] [runs_dir=...]`."""
    return run_command(write_page, PageArguments, arguments)
