"""DeepSpeed's launchers for many nodes, with stand-ins for pdsh and srun that start every node's processes here."""

import base64
import json
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
    options: dict[str, Any] = {"hostfile": str(hosts), "master_addr": "127.0.0.1", "master_port": 29417}
    values = neox_settings(world, tmp_path / "run", no_ssh_check=True, **options)
    config = write_yaml(tmp_path / "run.yml", values)
    # What is under test must not lean on the caller's environment: the stand-in passes on nothing but exports.
    train(config, tmp_path, tmp_path / "log", PATH=f"{BIN}:{os.environ['PATH']}", KISL_CPU="1")
    assert len(list((tmp_path / "log").glob("dp*"))) == 2
    assert counted(fed_rows(tmp_path / "log"), world) == expected(world)


def test_slurm_starts_workers_that_inject_exactly(world: Path, tmp_path: Path) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_text("localhost slots=2\n")
    options: dict[str, Any] = {"hostfile": str(hosts), "launcher": "slurm", "deepspeed_slurm": True}
    values = neox_settings(world, tmp_path / "run", no_ssh_check=True, master_port=29418, **options)
    config = write_yaml(tmp_path / "run.yml", values)
    # A batch script, in which deepy.py is called, has these of its own.
    slurm = {"SLURM_LOCALID": "0", "SLURM_PROCID": "0", "SLURM_NTASKS": "2"}
    place = {"PATH": f"{BIN}:{os.environ['PATH']}", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29418", "KISL_CPU": "1"}
    train(config, tmp_path, tmp_path / "log", **slurm, **place)
    assert counted(fed_rows(tmp_path / "log"), world) == expected(world)


def test_a_run_on_other_machines_gpus_is_launched_from_one_without_as_upstream_launches_it(
    world: Path, tmp_path: Path
) -> None:
    hosts, place = tmp_path / "hosts", tmp_path / "bin"
    hosts.write_text("node-a slots=8\nnode-b slots=8\n")
    place.mkdir()
    (place / "pdsh").write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/arguments\n')
    (place / "pdsh").chmod(0o755)
    values = neox_settings(world, tmp_path / "run", hostfile=str(hosts), master_addr="10.0.0.1", no_ssh_check=True)
    config = write_yaml(tmp_path / "run.yml", {**values, "train_batch_size": 16, "train_micro_batch_size_per_gpu": 1})
    train(config, tmp_path, PATH=f"{place}:{os.environ['PATH']}")
    arguments = (tmp_path / "arguments").read_text()
    assert "DS_ACCELERATOR" not in arguments
    encoded = arguments.split("--megatron_config ")[1].split()[0]
    settings = json.loads(base64.urlsafe_b64decode(encoded))
    assert settings.get("distributed_backend", "nccl") == "nccl"
    assert settings["global_num_gpus"] == 16
    assert "GPT_NEOX_DIR=" in arguments
