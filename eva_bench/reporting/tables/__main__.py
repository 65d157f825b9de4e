"""`python -m eva_bench.reporting.tables`."""

import sys

from eva_bench.reporting.tables import main

sys.exit(main())
