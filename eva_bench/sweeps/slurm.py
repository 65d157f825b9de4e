"""`make submit SUITE=<name>`: put the cells of a suite into SLURM's queue and return at once. Never imports torch.

Nothing of the sweep lives in this process: the queued jobs hold their composed cells, the records say what is
done (`make status`), and submitting again queues only what is left.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import ClassVar

from omegaconf import DictConfig, OmegaConf
from pydantic import Field

from eva_bench.sweeps.execute import freeze, left_to_do, spread_config
from eva_bench.sweeps.local import worker_environment
from eva_bench.sweeps.plan import make_plan
from eva_bench.sweeps.request import LAUNCHER, read_request
from eva_bench.sweeps.status import count, examine
from eva_bench.sweeps.worker import Part
from eva_bench.system.arguments import Arguments, run_command
from eva_bench.system.progress import say

NOT_FOR_SBATCH = ("_target_", "submitit_folder", "max_num_timeout")
COMMON = (
    "timeout_min",
    "cpus_per_task",
    "gpus_per_node",
    "tasks_per_node",
    "mem_gb",
    "nodes",
    "name",
    "stderr_to_stdout",
)


def submit(parts: Sequence[Part], launcher: DictConfig, most: int) -> list[str]:
    """Queue parts as SLURM arrays of at most `most` jobs, with the parameters of conf/hydra/launcher/slurm.yaml.

    Returns:
        Ids of the jobs.
    """
    import submitit  # noqa: PLC0415 - only a machine with SLURM needs it

    values = OmegaConf.to_container(launcher, resolve=True)
    os.environ["PYTHONPATH"] = worker_environment()["PYTHONPATH"]  # jobs inherit it
    executor = submitit.AutoExecutor(
        folder=values["submitit_folder"], cluster="slurm", slurm_max_num_timeout=values["max_num_timeout"]
    )
    parameters = {key: value for key, value in values.items() if key not in NOT_FOR_SBATCH}
    executor.update_parameters(**{key if key in COMMON else f"slurm_{key}": value for key, value in parameters.items()})
    jobs = []
    for first in range(0, len(parts), most):
        with executor.batch():
            jobs += [executor.submit(part) for part in parts[first : first + most]]
    return [job.job_id for job in jobs]


class SubmitArguments(Arguments):
    """Put the cells of a suite into SLURM's queue and return at once; submitting again queues what is left.

    make submit SUITE=gsm8k ARGS="scale=lite hydra.launcher.partition=gpu"
    """

    rest: ClassVar[str] = "settings"

    suite: str = Field(description="suite of conf/suite/")
    settings: list[str] = Field(
        default_factory=list, description="settings of the cells and of the launcher, as for run.py"
    )


def queue(arguments: SubmitArguments) -> int:
    """Queue what is left of a suite. Raises UserError."""
    request = read_request([f"{LAUNCHER}=slurm", f"suite={arguments.suite}", *arguments.settings])
    plan = make_plan(request.suite, request.cells)
    states = examine(plan)
    specs = left_to_do([item for item in states if item.state != "running"])  # those are in good hands
    config = spread_config(request, plan)
    say(f"{plan.name}: {count(states)}; {len(specs)} to submit")
    if not specs or request.dry_run:
        return 0
    parts = freeze(plan, specs, config)
    try:
        jobs = submit(parts, config.hydra.launcher, config.array_size)
    except RuntimeError as error:  # no SLURM here, or sbatch refused
        print(f"error: nothing was submitted: {str(error).splitlines()[0]}", file=sys.stderr)
        return 1
    say(
        f"Submitted {len(jobs)} jobs of up to {parts[0].count} cells: {jobs[0]} to {jobs[-1]}; output in {config.logs}."
    )
    say(f"Status: make status SUITE={plan.name}. Submitting again queues what is left.")
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m eva_bench.sweeps.slurm suite=<name> [settings] [hydra.launcher.partition=...]`."""
    return run_command(queue, SubmitArguments, arguments)


if __name__ == "__main__":
    sys.exit(main())
