"""What a sweep will take: tokens, FLOPs, hours and disk; and the speed of this machine, from a short calibration."""

import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np

from kisl_plugin.errors import InputError, KislError, needs_extra
from kisl_plugin.schedule import MOST_SAMPLES
from kisl_plugin.sweep.spec import Sweep, SweepRun, missing_inputs, vocabulary_of
from kisl_plugin.sweep.steps import RunState, state_of

__all__ = ["SweepPlan", "calibrate", "disk_of", "plan_sweep"]

# Where nothing was measured: bfloat16 on an A100, and the share of it that training commonly reaches.
GPU_FLOPS, GPU_SHARE = 312e12, 0.4
_CALIBRATION_SECONDS = 1.5
_MOST_PARAMETERS_OF_A_CPU = 50e6  # a step of a larger model takes a CPU longer than a plan should
# Bytes of a parameter: a checkpoint has the weights and Adam's two moments (GPT-NeoX in bfloat16 also the weights in
# fp32), and the finished model the weights.
_CHECKPOINT_BYTES = {"fp32": 12, "bfloat16": 14, "fp16": 14}
_MODEL_BYTES = {"fp32": 4, "bfloat16": 2, "fp16": 2}


@dataclass(frozen=True)
class SweepPlan:
    """What a sweep will take.

    `states` says where each run stands, `speeds` are the FLOP/s of one GPU or CPU thread (`device`) by model, without
    those that are unknown, and `basis` says where they are from. `missing` are input files that are not there, and
    `free` is the disk space in bytes.
    """

    states: tuple[RunState, ...]
    speeds: Mapping[str, float]
    device: str
    basis: str
    missing: tuple[str, ...]
    free: int

    def seconds_left(self, state: RunState) -> float | None:
        """Of the training of a run, on one GPU or CPU thread; None if the speed is unknown."""
        speed = self.speeds.get(state.run.model)
        return state.flops_left / speed if speed else None


def plan_sweep(sweep: Sweep, measure: bool = False) -> SweepPlan:
    """Write the YAMLs of all runs, and reckon what they take; nothing is started.

    Args:
        sweep: from read_sweep.
        measure: train each size for some seconds with the embedded engine, to know its speed here.

    Raises:
        InputError: `out` cannot be written to.
    """
    try:
        for run in sweep.runs:
            run.write_config()
    except OSError as error:
        raise InputError(f"{sweep.out}: cannot be written to ({error}); choose another --out") from None
    device, speeds = ("GPU" if sweep.engine == "neox" else "CPU"), dict[str, float]()
    basis = "unknown; --calibrate measures it"
    if measure:
        device, speeds = calibrate(sweep)
        basis = "measured here with the embedded engine" + ("" if device == "GPU" else ", one thread")
    elif sweep.engine == "neox":
        speeds = {run.model: GPU_FLOPS * GPU_SHARE for run in sweep.runs}
        basis = f"assumed, {GPU_SHARE:.0%} of {GPU_FLOPS / 1e12:.0f} TFLOP/s; --calibrate measures it"
    out = sweep.out.resolve()
    existing = next(folder for folder in (out, *out.parents) if folder.exists())
    states, missing = tuple(map(state_of, sweep.runs)), tuple(missing_inputs(sweep))
    return SweepPlan(states, speeds, device, basis, missing, shutil.disk_usage(existing).free)


def disk_of(run: SweepRun) -> float:
    """Bytes of the checkpoints that are kept and of the finished model."""
    precision = str(run.values.get("precision") or "fp32")
    factor = run.values.get("checkpoint_factor")
    saved = -(-run.train_iters // factor) if factor else 1
    kept = min(saved, run.values.get("keep_last_n_checkpoints") or saved)
    return run.params * float(kept * _CHECKPOINT_BYTES.get(precision, 14) + _MODEL_BYTES.get(precision, 4))


def calibrate(sweep: Sweep) -> tuple[str, dict[str, float]]:
    """GPU or CPU, and FLOP/s by model: of some steps of the embedded engine on this machine, on random tokens.

    On a CPU one thread is measured. What this machine or the engine cannot train is left out.
    """
    with needs_extra("local", "--calibrate"):
        import torch

        from kisl_plugin.local.config import read_config
        from kisl_plugin.local.training import build_model, build_optimizer, train_steps

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cpu":
        torch.set_num_threads(1)
    random = np.random.default_rng(0)
    speeds = {}
    for run in {run.model: run for run in sweep.runs}.values():
        if device.type == "cpu" and run.params > _MOST_PARAMETERS_OF_A_CPU:
            continue
        with suppress(KislError, torch.cuda.OutOfMemoryError):
            config = read_config([run.config])
            # A step is one micro batch, and there are more steps than the calibration has time for.
            changes = {"gradient_accumulation_steps": 1, "train_iters": MOST_SAMPLES}
            config = replace(config, values={**config.values, **changes})
            model = build_model(config, vocabulary_of(config["vocab_file"]), 0).to(device)
            rows = [{"text": random.integers(model.config.vocab_size, size=config["seq_length"] + 1)}]
            steps = train_steps(model, build_optimizer(model, config, device), config, rows, 0)
            next(steps)  # it allocates, and does not count
            seconds: list[float] = []
            while sum(seconds) < _CALIBRATION_SECONDS:
                seconds.append(next(steps).seconds)
            rate = len(seconds) * config.batch * config["seq_length"] / sum(seconds)
            speeds[run.model] = 6.0 * run.params * rate
    return ("GPU" if device.type == "cuda" else "CPU"), speeds
