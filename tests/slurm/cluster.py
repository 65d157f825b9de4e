"""A real one-node SLURM cluster of our own for as long as a test session lasts: munged, slurmctld, slurmd.

Everything lives in one temporary folder with its own ports and configuration, so that a cluster that is
installed on the machine is neither used nor disturbed. Needs root, as slurmd does to start jobs.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from tests.forked import free_port

PROGRAMS = ("slurmctld", "slurmd", "munged", "sbatch", "scontrol", "squeue", "scancel")

CONFIGURATION = """
ClusterName=evabench
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket,cred_expire=5
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=1,batch_sched_delay=0,requeue_delay=0
ReturnToService=2
MpiDefault=none
JobCompType=jobcomp/none
AccountingStorageType=accounting_storage/none
KillWait=20
MinJobAge=600
OverTimeLimit=0
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
SlurmdParameters=config_overrides
NodeName={host} NodeAddr=127.0.0.1 CPUs=4 RealMemory=16000 State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def why_not() -> str | None:
    """Why no cluster can be started here, or None."""
    if missing := [name for name in PROGRAMS if shutil.which(name) is None and not Path("/usr/sbin", name).exists()]:
        return f"no SLURM here: {', '.join(missing)} not found (apt-get install slurm-wlm munge)"
    if os.geteuid() != 0:
        return "starting a SLURM cluster needs root"
    return None


class Cluster:
    """A running cluster; `environment` makes sbatch, srun, scontrol and submitit use it."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.processes: list[subprocess.Popen] = []
        self.environment = os.environ | {
            "SLURM_CONF": str(folder / "slurm.conf"),
            "PATH": f"{os.environ['PATH']}:/usr/sbin:/usr/bin",
        }

    def __enter__(self) -> Cluster:
        self._start_munge()
        host = socket.gethostname().split(".")[0]
        for name in ("state", "spool"):
            (self.folder / name).mkdir()
        text = CONFIGURATION.format(host=host, folder=self.folder, controller_port=free_port(), node_port=free_port())
        (self.folder / "slurm.conf").write_text(text)
        (self.folder / "cgroup.conf").write_text("CgroupAutomount=no\n")
        self._start("slurmctld", "-D", "-i")
        self._start("slurmd", "-D", "-N", host)
        wait_until(lambda: "idle" in self.call("sinfo", "-h", "-o", "%T"), 30, "the node is idle", self.logs)
        return self

    def __exit__(self, *_) -> None:
        self.call("scancel", "--user=root", check=False)
        wait_until(lambda: not self.call("squeue", "-h", check=False).strip(), 40, "all jobs ended", self.logs)
        for process in reversed(self.processes):
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()

    def _start_munge(self) -> None:
        base = self.folder / "munge"
        base.mkdir()
        for path in (base, *(p for p in base.parents if p != Path("/"))):
            path.chmod(path.stat().st_mode | 0o011)  # its clients must reach the socket
        (base / "key").write_bytes(os.urandom(128))
        (base / "key").chmod(0o400)
        options = {"socket": "socket", "key-file": "key", "log-file": "log", "pid-file": "pid", "seed-file": "seed"}
        self._start("munged", "--foreground", "--force", *(f"--{key}={base / name}" for key, name in options.items()))
        wait_until((base / "socket").exists, 10, "munged listens", self.logs)

    def _start(self, program: str, *arguments: str) -> None:
        log = (self.folder / f"{program}.out").open("w")
        command = [shutil.which(program, path=self.environment["PATH"]), *arguments]
        self.processes.append(subprocess.Popen(command, stdout=log, stderr=log, env=self.environment))

    def call(self, *command: str, check: bool = True) -> str:
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=60)
        if check and done.returncode:
            raise RuntimeError(f"{command}: {done.stderr}")
        return done.stdout

    def jobs(self) -> dict[str, str]:
        """Job or array task -> state (PENDING, RUNNING, COMPLETED, CANCELLED, TIMEOUT, ...), finished ones included."""
        lines = self.call("squeue", "-h", "-a", "-r", "-t", "all", "-o", "%i %T").split("\n")
        return dict(line.split() for line in lines if line.strip())

    def logs(self) -> str:
        return "\n".join(
            f"--- {path.name}\n{path.read_text()[-2000:]}"
            for path in sorted(self.folder.glob("*.out")) + sorted(self.folder.glob("*.log"))
        )


def wait_until(condition: Callable[[], bool], seconds: float, what: str, explain: Callable[[], str] = str) -> None:
    """Wait for a condition. Raises AssertionError with `explain()` after `seconds`."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if condition():
                return
        except (RuntimeError, subprocess.TimeoutExpired):
            pass  # a daemon that is still starting
        time.sleep(0.2)
    raise AssertionError(f"not within {seconds} s: {what}\n{explain()}")
