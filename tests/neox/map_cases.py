"""Has GPT-NeoX read rows of random corpora whose split or documents change under one prefix, and prints what it read.

Each row is compared with the embedded engine's, which caches nothing.
"""

import json
import os
import random
import sys
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

CASES = 50


def main(by_content: bool) -> None:
    os.environ.update(LOCAL_RANK="0", RANK="0", WORLD_SIZE="1")
    from kisl_plugin.neox.loader import cache_maps_by_content
    from kisl_plugin.neox.worker import prepare_process

    prepare_process()
    import torch
    from megatron import mpu

    store = torch.distributed.FileStore(tempfile.mktemp(), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    mpu.initialize_model_parallel(1)
    if by_content:
        cache_maps_by_content()
    rng = random.Random(0)
    print("\n" + json.dumps([case(rng) for _ in range(CASES)]))


def case(rng: random.Random) -> list[bool]:
    """Whether GPT-NeoX reads the right rows of a corpus, of a part of it, and of another corpus of the same name."""
    sizes = [rng.randint(5, 90) for _ in range(rng.randint(40, 120))]
    other = [*sizes]
    other[rng.randrange(len(other))] += rng.randint(1, 30)
    part = len(sizes) - rng.randint(1, 9)
    shape = {"samples": rng.randint(1, 150), "seq_length": rng.randint(8, 64), "seed": rng.randint(0, 99)}
    with tempfile.TemporaryDirectory() as folder:
        prefix = Path(folder) / "text"
        return [agree(prefix, *variant, **shape) for variant in ((sizes, len(sizes)), (sizes, part), (other, part))]


def agree(prefix: Path, sizes: list[int], documents: int, *, samples: int, seq_length: int, seed: int) -> bool:
    from megatron.data.gpt2_dataset import GPT2Dataset
    from megatron.data.indexed_dataset import make_dataset

    from kisl_plugin.indexed import IndexedDataset, IndexedWriter
    from kisl_plugin.local.data import PackedRows

    ends: Any = np.cumsum([0, *sizes])
    with IndexedWriter(prefix, 60_000) as writer:
        for first, last in pairwise(ends):
            writer.add([*range(first, last)])
    chosen = np.arange(documents, dtype=np.int32)
    corpus = make_dataset(str(prefix), "mmap", True)
    theirs = GPT2Dataset("train", str(prefix), chosen, corpus, samples, None, seq_length, seed)
    ours = PackedRows(IndexedDataset(prefix), chosen, samples, seq_length, seed)
    if len(ours) != len(theirs) or not np.array_equal(np.unique(theirs.doc_idx), chosen):
        return False
    return all(np.array_equal(ours[i]["text"], theirs[i]["text"]) for i in range(len(theirs)))


if __name__ == "__main__":
    main(sys.argv[1] == "by content")
