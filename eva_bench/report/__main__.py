import sys

from eva_bench.report import main

sys.exit(main())
