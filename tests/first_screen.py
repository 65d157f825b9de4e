"""The report's first screen as the picture that the README shows: `make screen`, after `make report`."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.browser import Browser, executable
from tests.conftest import ROOT

PICTURE = ROOT / "docs/img/report.png"


def main() -> int:
    """Open results/report/index.html and write docs/img/report.png. Exit code 2 without report or browser."""
    html = ROOT / "results/report/index.html"
    if not html.is_file() or executable() is None:
        print("error: run `make report` first, on a machine with Chromium.", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as profile, Browser(Path(profile), width=1200, height=900) as browser:
        browser.open(html.as_uri())
        browser.wait("document.body.dataset.ready")
        browser.screenshot(PICTURE)
    print(PICTURE)
    return 0


if __name__ == "__main__":
    sys.exit(main())
