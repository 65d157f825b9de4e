import sys

from eva_bench.tables import main

sys.exit(main())
