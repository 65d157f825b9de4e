"""Ways around the report page, for tests that open it in a browser."""

from __future__ import annotations

import json

from tests.browser import Browser

VIEWS = ("overview", "tables", "compare", "tradeoffs", "rates", "runs", "claims", "probes", "figures", "missing")


def go(browser: Browser, address: str) -> None:
    """Open a view by its address and wait until it is drawn."""
    before = browser.run("document.body.dataset.ready")
    browser.run(f"location.hash = {json.dumps(address)}; 1")
    if browser.run("location.hash") != "#" + address:
        raise AssertionError(address)
    browser.wait(f"document.body.dataset.ready !== '{before}'")


def after(browser: Browser, script: str) -> None:
    """Do something that draws the view again, and wait for it."""
    before = browser.run("document.body.dataset.ready")
    browser.run(f"{script}; 1")
    browser.wait(f"document.body.dataset.ready !== '{before}'")


def texts(browser: Browser, selector: str) -> list[str]:
    return browser.run(f"[...document.querySelectorAll({json.dumps(selector)})].map(e => e.textContent)")


def choose(browser: Browser, name: str, value: str) -> None:
    field = f"document.querySelector('select[name={name}]')"
    after(browser, f"{field}.value = '{value}'; {field}.dispatchEvent(new Event('change'))")
