"""Runs of the real GPT-NeoX on a CPU, and what its model was really fed."""

import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tiny_world import settings

SPY = Path(__file__).parent / "spy"


@dataclass(frozen=True)
class Finished:
    """A run that ended: exit status and everything it said."""

    status: int
    output: str


def neox_settings(world: Path, save: Path, **changes: Any) -> dict[str, Any]:
    """The tiny run of `tiny_world.settings` as GPT-NeoX takes it on a CPU."""
    own = {"pipe_parallel_size": 0, "precision": "fp32", "num_workers": 0, "data_impl": "mmap"}
    return settings(world, save, **{**own, **changes})


def changed(values: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Settings with changes; "kisl.x" stands for a key of the section, None leaves a key out."""
    for key, value in changes.items():
        if key.startswith("kisl."):
            values["kisl"] = {**values["kisl"], key.removeprefix("kisl."): value}
        else:
            values[key] = value
    return {key: value for key, value in values.items() if value is not None}


def start(arguments: Sequence[str], cwd: Path, log: Path | None = None, **variables: str) -> "subprocess.Popen[str]":
    """Start the command `deepy.py`. `log`: the folder that is told which tokens the model is fed."""
    paths = [str(SPY), *filter(None, [os.environ.get("PYTHONPATH")])]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths), **variables}
    if log is not None:
        log.mkdir(parents=True, exist_ok=True)
        env["KISL_SPY"] = str(log)
    return subprocess.Popen(
        [*_command(), *arguments],
        cwd=cwd,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def run(arguments: Sequence[str], cwd: Path, log: Path | None = None, **variables: str) -> Finished:
    """Run the command `deepy.py` to its end."""
    process = start(arguments, cwd, log, **variables)
    output, _ = process.communicate(timeout=600)
    return Finished(process.returncode, output)


def train(config: Path, cwd: Path, log: Path | None = None, **variables: str) -> Finished:
    """Run `deepy.py train`, which must succeed."""
    done = run(["train", str(config)], cwd, log, **variables)
    assert done.status == 0, "\n".join(line[:300] for line in done.output.splitlines()[-40:])
    return done


def fed_rows(log: Path) -> NDArray[np.int64]:
    """The targets [samples, seq_length] the model was trained on, in the order of samples.

    Every process noted the labels that its loss was computed with; of tensor-parallel processes, which all see the
    same, the first is read.
    """
    ranks = sorted(log.glob("dp*_mp0.bin"))
    parts = [_read(path) for path in ranks]
    steps = min(len(part) for part in parts)
    return np.concatenate([part[m] for m in range(steps) for part in parts])


def _read(path: Path) -> list[NDArray[np.int64]]:
    """One process's micro batches."""
    found = []
    with path.open("rb") as stream:
        while header := stream.read(16):
            rows, columns = np.frombuffer(header, dtype=np.int64)
            found.append(np.frombuffer(stream.read(8 * rows * columns), dtype=np.int64).reshape(rows, columns))
    return found


def count_statements(rows: NDArray[np.int64], statements: Sequence[Sequence[int]], eod: int) -> list[int]:
    """How often each statement stands in the rows between two separators, found by looking, not by asking."""
    documents = Counter(
        tuple(part.tolist()) for row in rows for part in np.split(row[row != eod], _ends_of_documents(row, eod))
    )
    return [documents[tuple(statement)] for statement in statements]


def _ends_of_documents(row: NDArray[np.int64], eod: int) -> NDArray[np.int64]:
    """Where, in the row without its separators, each separator stood."""
    ends = np.flatnonzero(row == eod)
    return ends - np.arange(len(ends))


def _command() -> list[str]:
    script = shutil.which("deepy.py", path=str(Path(sys.executable).parent))
    return [script] if script else [sys.executable, "-m", "kisl_plugin.neox.launcher"]
