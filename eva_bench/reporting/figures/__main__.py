"""`python -m eva_bench.reporting.figures`."""

import sys

from eva_bench.reporting.figures import main

sys.exit(main())
