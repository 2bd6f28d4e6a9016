"""A real Slurm on this machine, in a folder of its own, while a test runs; or scripts in place of its commands."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scancel", "scontrol", "sinfo")
START_SECONDS = 30.0

CONFIGURATION = """
ClusterName=kisl
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SwitchType=switch/none
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=1,sched_min_interval=0,batch_sched_delay=0
ReturnToService=2
KillWait=2
NodeName={host} NodeAddr=127.0.0.1 CPUs=4 RealMemory=16000 State=UNKNOWN
PartitionName=debug Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def missing_programs() -> list[str]:
    """What a Slurm needs and this machine has not, or the right to run it."""
    missing = [program for program in PROGRAMS if shutil.which(program, path=_path()) is None]
    return missing if os.geteuid() == 0 else [*missing, "root"]


@contextmanager
def one_machine_slurm(folder: Path) -> Iterator[dict[str, str]]:
    """Start Slurm in `folder`; the environment in which its commands find it."""
    host = socket.gethostname().split(".")[0]
    for name in ("state", "spool"):
        (folder / name).mkdir()
    configuration = folder / "slurm.conf"
    configuration.write_text(
        CONFIGURATION.format(
            folder=folder, host=host, user="root", controller_port=_free_port(), node_port=_free_port()
        )
    )
    environment = os.environ | {"SLURM_CONF": str(configuration), "PATH": _path()}
    daemons = []
    try:
        daemons.append(_munged(folder, environment))
        for command in (["slurmctld", "-D", "-i"], ["slurmd", "-D", "-N", host]):
            daemons.append(_start(command, folder, environment))
        _wait_until_idle(environment, folder)
        yield {"SLURM_CONF": str(configuration), "PATH": _path()}
    finally:
        _end_jobs(environment)
        for daemon in reversed(daemons):
            daemon.terminate()
        for daemon in daemons:
            daemon.wait(timeout=START_SECONDS)


def _munged(folder: Path, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    key = folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o400)
    files = {"key-file": key, "socket": folder / "munge.socket", "pid-file": folder / "munge.pid"}
    files |= {"log-file": folder / "munge.log", "seed-file": folder / "munge.seed"}
    options = [f"--{name}={file}" for name, file in files.items()]
    return _start(["munged", "--foreground", "--force", *options], folder, environment)


def _start(command: list[str], folder: Path, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    with (folder / f"{command[0]}.out").open("wb") as out:
        return subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=out)


def _wait_until_idle(environment: dict[str, str], folder: Path) -> None:
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until:
        state = subprocess.run(["sinfo", "-h", "-o", "%T"], env=environment, capture_output=True, text=True)
        if state.stdout.strip() == "idle":
            return
        time.sleep(0.2)
    raise RuntimeError(f"Slurm did not come up within {START_SECONDS:.0f} s; see the logs in {folder}")


def _end_jobs(environment: dict[str, str]) -> None:
    """What a failed test left running would outlive the daemons."""
    subprocess.run(["scancel", "--user=root"], env=environment, capture_output=True)
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until:
        if not subprocess.run(["squeue", "-h"], env=environment, capture_output=True).stdout:
            return
        time.sleep(0.2)


def _free_port() -> int:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return int(held.getsockname()[1])


def _path() -> str:
    return os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin", "/sbin"])


@contextmanager
def slurm_for_tests(folder: Path, pythonpath: str) -> Iterator[None]:
    """A Slurm whose commands and jobs the tests of a module use; skips them where it is not installed."""
    if missing := missing_programs():
        pytest.skip(f"a real Slurm needs {', '.join(missing)} on this machine (Debian: slurm-wlm, munge)")
    with one_machine_slurm(folder) as environment, pytest.MonkeyPatch.context() as patch:
        for name, value in (environment | {"PYTHONPATH": pythonpath}).items():
            patch.setenv(name, value)
        yield


def pretend(programs: Mapping[str, str], folder: Path, patch: pytest.MonkeyPatch) -> Path:
    """Put scripts in place of Slurm's commands; what they record goes to $FAKE, the folder that is returned."""
    folder.mkdir()
    for name, script in programs.items():
        (folder / name).write_text(f"#!/bin/bash\n{script}\n")
        (folder / name).chmod(0o755)
    patch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    patch.setenv("FAKE", str(folder))
    return folder


def eventually(condition: Callable[[], object], seconds: float) -> None:
    """Wait until a condition holds."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, f"not within {seconds:.0f} s"
        time.sleep(0.3)
