"""`python -m eva_bench.reporting.claims`."""

import sys

from eva_bench.reporting.claims import main

sys.exit(main())
