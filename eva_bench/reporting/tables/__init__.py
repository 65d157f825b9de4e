"""Tables from records alone: Markdown, LaTeX, CSV and macros, published numbers beside ours. Never imports torch."""

from eva_bench.reporting.tables.command import all_tables, main

__all__ = ["all_tables", "main"]
