"""`kisl export --verify`: the logits of an exported model beside those that GPT-NeoX computes from the checkpoint.

GPT-NeoX runs in processes of its own, one for each tensor-parallel rank; DeepSpeed's launcher starts this file there.
"""

import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import yaml
from numpy.typing import NDArray

from kisl_plugin.errors import KislError, error_line
from kisl_plugin.neox.checkpoint import Checkpoint
from kisl_plugin.neox.patches import REQUEST
from kisl_plugin.neox.worker import leave_processes, prepare_process

__all__ = ["TOLERANCE", "largest_difference"]

# In nats. Rounding in fp32 leaves some 1e-5; one exchanged row of one head in a small model is 1e-2 or more.
TOLERANCE = 1e-3

_ROWS, _MOST_TOKENS, _SEED = 2, 256, 1234
_FOLDER = "KISL_VERIFY"  # the variable with the folder of the two files, for the processes
_TOKENS, _LOGITS = "tokens.npy", "logits.npy"
# What the checkpoint's YAMLs say about data, machines, speed and where things are written. All else makes up the model.
_LEFT_OUT = frozenset(
    (
        "kisl save train_data_paths valid_data_paths test_data_paths train_batch_size gradient_accumulation_steps "
        "zero_optimization fp16 bf16 data_types deepspeed_extra_args sequence_parallel eval_tasks "
        "checkpoint_activations partition_activations hostfile launcher deepspeed_slurm deepspeed_mpi no_ssh_check "
        "master_addr master_port include exclude num_nodes use_wandb use_comet tensorboard_dir log_dir autotuning "
        "profile memory_profiling checkpoint_validation_with_forward_pass"
    ).split()
)


def largest_difference(checkpoint: Checkpoint, model: Path, tokenizer: Path) -> float:
    """The largest difference between a logit of the exported model and that of GPT-NeoX, both in fp32 on the CPU.

    The rows are random tokens: a mistake in any weight shows on them, and no file of the training is needed.
    """
    import torch
    from transformers import LlamaForCausalLM

    shape = _ROWS, min(_MOST_TOKENS, checkpoint.settings["max_position_embeddings"])
    tokens = np.random.default_rng(_SEED).integers(0, checkpoint.settings["padded_vocab_size"], shape)
    expected = _logits_of_neox(checkpoint, tokens, tokenizer)
    loaded = LlamaForCausalLM.from_pretrained(model, torch_dtype=torch.float32).eval()
    with torch.no_grad():
        return float((loaded(torch.from_numpy(tokens)).logits - torch.from_numpy(expected)).abs().max())


def _logits_of_neox(checkpoint: Checkpoint, tokens: NDArray[np.int64], tokenizer: Path) -> NDArray[np.float32]:
    """Logits [rows, tokens, padded vocabulary] of GPT-NeoX's own model for tokens [rows, tokens]."""
    # The model is only loaded, in fp32, by one process a tensor-parallel rank.
    values = {key: value for key, value in checkpoint.yamls.values.items() if key not in _LEFT_OUT} | {
        "iteration": checkpoint.iteration,
        "vocab_file": str(tokenizer.resolve()),
        "num_gpus": checkpoint.settings["model_parallel_size"],
        # The files of a pipeline are by layer, so that one stage loads what several saved.
        "pipe_parallel_size": min(1, checkpoint.yamls.values.get("pipe_parallel_size") or 0),
        "train_micro_batch_size_per_gpu": _ROWS,
        "precision": "fp32",
        "finetune": True,  # neither the optimizer nor states of random numbers
    }
    with TemporaryDirectory() as name:
        folder = Path(name)
        np.save(folder / _TOKENS, tokens)
        # GPT-NeoX knows a checkpoint by the name of its folder only.
        (folder / f"global_step{checkpoint.iteration}").symlink_to(checkpoint.folder.resolve())
        yaml_file = folder / "verify.yml"
        yaml_file.write_text(yaml.safe_dump({**values, "load": name}), encoding="utf-8")
        process = subprocess.run(
            [sys.executable, "-m", "kisl_plugin.neox.launcher", __file__, str(yaml_file)],
            # No hostfile of the machine: all processes are here.
            env={**os.environ, REQUEST: "1", _FOLDER: name, "DLTS_HOSTFILE": os.devnull},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        if process.returncode or not (folder / _LOGITS).is_file():
            reason = error_line(process.stdout.splitlines()).removeprefix("Error: ")
            raise KislError(f"{checkpoint.folder}: GPT-NeoX could not compute its logits for --verify: {reason}")
        logits: NDArray[np.float32] = np.load(folder / _LOGITS)
        return logits


def _write_logits(folder: Path) -> None:
    """In one of GPT-NeoX's processes: the logits of the tokens in `folder`, written there by the first process."""
    prepare_process()
    import torch
    from megatron import mpu
    from megatron.text_generation_utils import get_batch
    from megatron.utils import setup_for_inference_or_eval

    model, neox_args = setup_for_inference_or_eval(use_cache=False)
    model.eval()
    tokens, attention_mask, position_ids = get_batch(neox_args, torch.from_numpy(np.load(folder / _TOKENS)))
    with torch.no_grad():
        # Also of a pipeline, which is one stage here: GPT-NeoX's own forward_model returns a pipeline's logits after
        # its loss has overwritten them.
        logits = model.module((tokens, position_ids, attention_mask))
        if logits.shape[-1] < neox_args.padded_vocab_size:  # with tensor parallelism each process may have a part
            logits = mpu.gather_from_model_parallel_region(logits)
    if torch.distributed.get_rank() == 0:
        np.save(folder / _LOGITS, logits.float().numpy())


if __name__ == "__main__":
    # The modules beside this file must not be importable as top-level ones, such as `run`.
    sys.path.remove(str(Path(__file__).parent))
    _write_logits(Path(os.environ[_FOLDER]))
    leave_processes()
