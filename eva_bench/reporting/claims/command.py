"""`make claims`: docs/claims.md from the records and conf/claim. No torch here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import Field

from eva_bench.reporting.archive import Archive
from eva_bench.reporting.claims.page import render
from eva_bench.reporting.claims.spec import check_names, read_claims
from eva_bench.system.arguments import Arguments, run_command
from eva_bench.system.errors import UserError
from eva_bench.system.paths import RESULTS, ROOT

PAGE = ROOT / "docs" / "claims.md"


class ClaimsArguments(Arguments):
    """Write docs/claims.md: every claim of conf/claim with its verdict from the records.

    make claims
    """

    results_dir: Path = Field(RESULTS, description="folder of the records")
    page: Path | None = Field(None, description="to write: docs/claims.md; of another results_dir, its claims.md")


def claims(arguments: ClaimsArguments) -> int:
    """Write the page. Raises UserError."""
    found = read_claims()
    for claim in found:
        check_names(claim)
    text = render(found, Archive.load(arguments.results_dir))
    own = arguments.results_dir.resolve() != RESULTS.resolve()
    page = arguments.page or (arguments.results_dir / "claims.md" if own else PAGE)
    try:
        page.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"the claims cannot be written to '{page}': {error.strerror}.") from error
    print(f"{page}: {len(found)} claims")
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m eva_bench.reporting.claims [results_dir=...] [page=...]`."""
    return run_command(claims, ClaimsArguments, arguments)
