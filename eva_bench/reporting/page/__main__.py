"""`python -m eva_bench.reporting.page`."""

import sys

from eva_bench.reporting.page import main

sys.exit(main())
