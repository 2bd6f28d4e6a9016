"""How many parameters a model of GPT-NeoX has, whatever way it is laid out over processes."""

from typing import Any

_EMBEDDINGS = ("word_embeddings", "position_embeddings", "final_linear")


def parameter_counts(model: Any) -> tuple[int, int]:
    """All parameters, and those outside the embeddings (input and output); the same in every layout.

    `model` is DeepSpeed's engine. All processes must call it. What each tensor-parallel rank keeps whole (norms)
    counts once, and so does an embedding that the first and the last pipeline stage share.
    """
    import torch
    from megatron import mpu

    counts = torch.zeros(2, dtype=torch.int64, device=torch.cuda.current_device())
    if mpu.get_data_parallel_rank() == 0 and mpu.get_model_parallel_rank() == 0:
        counts += torch.tensor(_local_counts(model.module, mpu), device=counts.device)
    torch.distributed.all_reduce(counts)
    total, embeddings = counts.tolist()
    return int(total), int(total - embeddings)


def _local_counts(module: Any, mpu: Any) -> tuple[int, int]:
    total = embeddings = 0
    for name, parameter in module.named_parameters():
        if name.startswith("tied_modules.") and mpu.get_pipe_parallel_rank() > 0:
            continue
        size = getattr(parameter, "ds_numel", parameter.numel())
        if getattr(parameter, "model_parallel", False):
            size *= mpu.get_model_parallel_world_size()
        total += size
        if any(part in name for part in _EMBEDDINGS):
            embeddings += size
    return total, embeddings
