"""eva-bench: how should LoRA be initialised?"""

__version__ = "0.1.0"
