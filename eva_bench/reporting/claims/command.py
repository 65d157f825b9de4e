"""`make claims`: docs/claims.md from the records and conf/claim. No torch here."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from eva_bench.reporting.archive import Archive
from eva_bench.reporting.claims.page import render
from eva_bench.reporting.claims.spec import check_methods, read_claims
from eva_bench.system.errors import UserError
from eva_bench.system.paths import ROOT

PAGE = ROOT / "docs" / "claims.md"


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m eva_bench.reporting.claims [results [page]]`: write docs/claims.md."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    results = Path(given[0]) if given else ROOT / "results"
    page = Path(given[1]) if len(given) > 1 else PAGE
    try:
        claims = read_claims()
        for claim in claims:
            check_methods(claim)
        text = render(claims, Archive.load(results))
        page.write_text(text, encoding="utf-8")
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: the claims cannot be written to '{page}': {error.strerror}.", file=sys.stderr)
        return 2
    print(f"{page}: {len(claims)} claims")
    return 0
