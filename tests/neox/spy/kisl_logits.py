"""Notes the logits of GPT-NeoX's own model on fixed rows.

The folder KISL_LOGITS gets loaded.npz (the model as GPT-NeoX set it up, that is, loaded) and saved.npz (as it was when
a checkpoint was written), each with `tokens` [rows, seq_length] and `logits` [rows, seq_length, padded vocabulary].
"""

import os
from pathlib import Path
from typing import Any

LARGEST_TOKEN = 300


def watch(training: Any) -> None:
    set_up, save = training.setup_model_and_optimizer, training.save_checkpoint

    def setup_model_and_optimizer(neox_args: Any, **others: Any) -> Any:
        made = set_up(neox_args=neox_args, **others)
        _note(neox_args, made[0], "loaded")
        return made

    def save_checkpoint(neox_args: Any, model: Any, **others: Any) -> None:
        save(neox_args=neox_args, model=model, **others)
        _note(neox_args, model, "saved")

    training.setup_model_and_optimizer, training.save_checkpoint = setup_model_and_optimizer, save_checkpoint


def _note(neox_args: Any, model: Any, name: str) -> None:
    import numpy as np
    import torch
    from megatron import mpu

    shape = (neox_args.train_micro_batch_size_per_gpu, neox_args.seq_length + 1)
    rows = torch.randint(0, LARGEST_TOKEN, shape, generator=torch.Generator().manual_seed(5))
    model.eval()
    with torch.no_grad():
        logits = (_from_the_pipeline if neox_args.is_pipe_parallel else _from_the_model)(neox_args, model, rows)
        if logits is not None:
            logits = mpu.gather_from_model_parallel_region(logits)
    model.train()
    if logits is not None and mpu.get_model_parallel_rank() == mpu.get_data_parallel_rank() == 0:
        path = Path(os.environ["KISL_LOGITS"]) / f"{name}.npz"
        np.savez(path, tokens=rows[:, :-1].numpy(), logits=logits.float().numpy())


def _from_the_model(neox_args: Any, model: Any, rows: Any) -> Any:
    from megatron.text_generation_utils import get_batch

    tokens, attention_mask, position_ids = get_batch(neox_args, rows[:, :-1])
    batch_fn, model.module.batch_fn = model.module.batch_fn, None
    logits = model((tokens, position_ids, attention_mask))
    model.module.batch_fn = batch_fn
    return logits


def _from_the_pipeline(neox_args: Any, model: Any, rows: Any) -> Any:
    """The last stage's outputs are seen by its loss alone."""
    seen = []
    loss = model.module.loss_fn

    def watched(outputs: Any, labels: Any) -> Any:
        seen.append(outputs.clone())
        return loss(outputs, labels)

    model.module.loss_fn = watched
    model.eval_batch(iter([{"text": rows}]), num_micro_batches=1)
    model.module.loss_fn = loss
    return seen[0] if seen else None
