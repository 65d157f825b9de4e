"""Write results/report/index.html. No torch here."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from eva_bench.reporting.archive import Archive
from eva_bench.reporting.page.content import content
from eva_bench.system.errors import UserError

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


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m eva_bench.reporting.page [results [runs]]`: write results/report/index.html."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    results, runs = (Path(folder) for folder in [*given, *("results", "runs")[len(given) :]][:2])
    page = results / "report" / "index.html"
    try:
        text = render(Archive.load(results), runs)
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(text, encoding="utf-8")
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: the report cannot be written to '{page}': {error.strerror}.", file=sys.stderr)
        return 2
    print(f"{page} ({len(text) / 1e6:.1f} MB): open it in any browser")
    return 0
