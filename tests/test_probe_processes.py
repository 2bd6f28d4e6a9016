"""Two processes that share the items give the results of one. lm_eval's own gathering runs for real, over gloo."""

import json
import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from probe_world import ask, plain_model, some_triples, write_card

from kisl_plugin.resources import resource
from kisl_plugin.triples import CONTROL

pytest.importorskip("lm_eval")
TASKS = ["kisl_wikidata", "kisl_background"]
# lm_eval's hf runs in several processes on GPUs only; these are its own class with gloo between them.
WORKER = """
import json, sys
import torch
import torch.distributed as dist
from lm_eval.evaluator import evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager, get_task_dict

dist.init_process_group("gloo")

class Shared(HFLM):
    rank = property(lambda self: dist.get_rank())
    world_size = property(lambda self: dist.get_world_size())

    def all_gather(self, tensor):
        parts = [torch.zeros(1, dtype=tensor.dtype) for _ in range(self.world_size)]
        dist.all_gather(parts, tensor.reshape(1))
        return torch.cat(parts)

    def gather_object(self, value, dst=0):
        parts = [None] * self.world_size if self.rank == dst else None
        dist.gather_object(value, parts, dst=dst)
        return parts

    def barrier(self):
        dist.barrier()

model, tasks, names = sys.argv[1:]
tasks = get_task_dict(names.split(","), TaskManager(include_path=tasks, include_defaults=False))
results = evaluate(lm=Shared(pretrained=model, dtype="float32", device="cpu"), task_dict=tasks)
if dist.get_rank() == 0:
    print(json.dumps({task: results["results"][task] for task in names.split(",")}))
"""


def start(model: Path, rank: int, port: int) -> subprocess.Popen[str]:
    where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RANK": str(rank), "WORLD_SIZE": "2"}
    return subprocess.Popen(
        [sys.executable, "-c", WORKER, str(model), str(resource("tasks")), ",".join(TASKS)],
        env={**os.environ, **where, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_two_processes_give_the_scores_of_one(tmp_path: Path) -> None:
    # A single control item: one of the two processes has none.
    injected = [replace(triple, group="injected") for triple in some_triples()]
    model = plain_model(tmp_path)
    write_card(model, (*injected[:-1], replace(injected[-1], group=CONTROL)))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [start(model, rank, port) for rank in range(2)]
    said = [process.communicate(timeout=180) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said[0][1] + said[1][1]
    two: dict[str, Any] = json.loads(said[0][0].splitlines()[-1])
    one = ask(model, *TASKS)["results"]
    for task in TASKS:
        scores = {name: value for name, value in one[task].items() if name.endswith(",none") and "stderr" not in name}
        assert len(scores) > (15 if task == "kisl_wikidata" else 0)
        assert {name: two[task][name] for name in scores} == pytest.approx(scores, rel=1e-5)
