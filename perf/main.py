"""`make perf`: every figure, one after the other."""

import sys
from collections.abc import Sequence

from eva_bench.system.arguments import Arguments, run_command
from perf import (
    control,
    core,
    eva_init,
    parameters,
    probes,
    reliability,
    report,
    small,
    start_up,
    sweeps,
    targets,
    vision,
)


class Perf(Arguments):
    """Measure every figure of speed and memory (quiet machine, some minutes): results/bench. It takes no argument."""


def measure(_: Perf) -> int:
    """Run all of them; each writes its own files into results/bench, and the last one all that have a target."""
    core.main()
    eva_init.main()
    start_up.main()
    parameters.main()
    probes.main()
    sweeps.main()
    vision.main()
    small.main()
    control.main()
    report.main()
    reliability.main()
    targets.main()
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m perf.main`."""
    return run_command(measure, Perf, arguments)


if __name__ == "__main__":
    sys.exit(main())
