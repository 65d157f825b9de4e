"""`make report`: one static page from records alone, no server and no network. Never imports torch."""

from eva_bench.reporting.page.command import main

__all__ = ["main"]
