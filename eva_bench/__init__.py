"""eva-bench: how should a low-rank adapter start?"""

__version__ = "0.1.0"
