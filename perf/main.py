"""`make perf`: every figure, one after the other."""

from perf import control, core, eva_init, parameters, probes, reliability, report, start_up, sweeps, targets, vision


def main() -> None:
    """Run all of them; each writes its own files into results/bench, and the last one all that have a target."""
    core.main()
    eva_init.main()
    start_up.main()
    parameters.main()
    probes.main()
    sweeps.main()
    vision.main()
    control.main()
    report.main()
    reliability.main()
    targets.main()


if __name__ == "__main__":
    main()
