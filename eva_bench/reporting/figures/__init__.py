"""Figures from the records: SVG and PDF."""
