"""eva-bench: `python run.py method=eva task=gsm8k`; `python run.py --help` names every choice."""

from eva_bench.cli import main
from eva_bench.system.signals import leave

if __name__ == "__main__":
    leave(main())
