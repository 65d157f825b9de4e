"""eva-bench: `python run.py method=eva task=gsm8k`; `python run.py --help` names every choice."""

import sys

from eva_bench.cli import main

if __name__ == "__main__":
    sys.exit(main())
