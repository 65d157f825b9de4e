"""Claims of the literature beside what the records say. Never imports torch."""

from eva_bench.reporting.claims.command import main

__all__ = ["main"]
