"""Figures from the records: SVG and PDF. Never imports torch."""

from eva_bench.reporting.figures.command import drawings, main

__all__ = ["drawings", "main"]
