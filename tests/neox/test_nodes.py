"""DeepSpeed's launchers for many nodes, with stand-ins for pdsh and srun that start every node's processes here."""

import os
from pathlib import Path
from typing import Any

import pytest
from running import fed_rows, neox_settings, train
from test_layouts import counted, expected
from tiny_world import write_yaml

pytestmark = pytest.mark.matrix
BIN = Path(__file__).parent / "bin"


def test_pdsh_gives_workers_on_other_nodes_what_they_need(world: Path, tmp_path: Path) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_text("node-a slots=1\nnode-b slots=1\n")
    told: dict[str, Any] = {"hostfile": str(hosts), "master_addr": "127.0.0.1", "master_port": 29417}
    values = neox_settings(world, tmp_path / "run", no_ssh_check=True, **told)
    config = write_yaml(tmp_path / "run.yml", values)
    # What is under test must not lean on the caller's environment: the stand-in passes on nothing but exports.
    train(config, tmp_path, tmp_path / "log", PATH=f"{BIN}:{os.environ['PATH']}")
    assert len(list((tmp_path / "log").glob("dp*"))) == 2
    assert counted(fed_rows(tmp_path / "log"), world) == expected(world)


def test_slurm_starts_workers_that_inject_exactly(world: Path, tmp_path: Path) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_text("localhost slots=2\n")
    told: dict[str, Any] = {"hostfile": str(hosts), "launcher": "slurm", "deepspeed_slurm": True}
    values = neox_settings(world, tmp_path / "run", no_ssh_check=True, master_port=29418, **told)
    config = write_yaml(tmp_path / "run.yml", values)
    # A batch script, in which deepy.py is called, has these of its own.
    slurm = {"SLURM_LOCALID": "0", "SLURM_PROCID": "0", "SLURM_NTASKS": "2"}
    place = {"PATH": f"{BIN}:{os.environ['PATH']}", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29418"}
    train(config, tmp_path, tmp_path / "log", **slurm, **place)
    assert counted(fed_rows(tmp_path / "log"), world) == expected(world)
