"""Write results/report/index.html. No torch here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from pydantic import Field

from eva_bench.reporting.archive import Archive
from eva_bench.reporting.page.content import content
from eva_bench.system.arguments import Arguments, run_command
from eva_bench.system.errors import UserError
from eva_bench.system.files import write_atomically

HERE = Path(__file__).parent


def render(archive: Archive, runs_dir: Path) -> str:
    """The whole page as text.

    Args:
        archive: all records.
        runs_dir: where samples are read from, if they are there.
    """
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    own = {"css": (HERE / "page.css").read_text(encoding="utf-8"), "js": (HERE / "page.js").read_text(encoding="utf-8")}
    return environment.get_template("page.html.j2").render(**content(archive, runs_dir), **own)


class PageArguments(Arguments):
    """Make one page from the records: <results>/report/index.html, which opens in any browser without a server.

    make report ARGS="results_dir=mine"
    """

    results_dir: Path = Field(Path("results"), description="folder of the records and of the page")
    runs_dir: Path = Field(Path("runs"), description="where sample answers are read from, if they are there")


def write_page(arguments: PageArguments) -> int:
    """Make the page. Raises UserError."""
    page = arguments.results_dir / "report" / "index.html"
    text = render(Archive.load(arguments.results_dir), arguments.runs_dir)
    try:
        write_atomically(page, text)
    except OSError as error:
        raise UserError(f"the report cannot be written to '{page}': {error.strerror}.") from error
    print(f"{page} ({len(text) / 1e6:.1f} MB): open it in any browser")
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m eva_bench.reporting.page [results_dir=...] [runs_dir=...]`."""
    return run_command(write_page, PageArguments, arguments)
