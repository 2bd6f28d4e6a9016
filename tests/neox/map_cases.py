"""Has GPT-NeoX build index maps of random corpora, and prints what the check says to each, for right and wrong ones.

Also compares the rows of the local engine with those that GPT-NeoX's own dataset reads through its maps.
"""

import json
import os
import random
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from kisl_plugin.neox.index_cache import Asked, Maps, what_is_wrong

CASES = 150


def main() -> None:
    os.environ.update(LOCAL_RANK="0", RANK="0", WORLD_SIZE="1")
    from kisl_plugin.neox.worker import prepare

    prepare()
    import torch
    from megatron import mpu

    store = torch.distributed.FileStore(tempfile.mktemp(), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    mpu.initialize_model_parallel(1)
    rng = random.Random(0)
    found = [case(rng) for _ in range(CASES)]
    print("\n" + json.dumps(found))


def case(rng: random.Random) -> dict[str, Any]:
    sizes = np.array([rng.randint(1, 90) for _ in range(rng.randint(40, 120))], dtype=np.int32)
    begin = rng.randint(0, 5) if rng.random() < 0.5 else 0
    documents = np.arange(begin, len(sizes) - rng.randint(0, 5), dtype=np.int32)
    packing = rng.choice(["packed", "packed", "pack_until_overflow"])
    if packing != "packed":
        documents = np.arange(len(documents), dtype=np.int32)
    epochs = rng.choice([None, None, 1]) if packing == "packed" else None
    asked = Asked(documents, sizes, rng.randint(1, 150), epochs, rng.randint(8, 64), rng.randint(0, 99), packing, True)
    maps = built(asked)
    other = Asked(**{**vars(asked), **changed(asked, rng)})
    same = all(np.array_equal(a, b) for a, b in zip(vars(maps).values(), vars(built(other)).values(), strict=True))
    return {
        "right": what_is_wrong(maps, asked),
        "other": what_is_wrong(maps, other),
        "other_is_the_same": same,
        "rows": packing != "packed" or epochs is not None or rows_agree(asked, maps),
    }


def changed(asked: Asked, rng: random.Random) -> dict[str, Any]:
    """Another split, or a corpus that has changed."""
    if rng.random() < 0.5:
        return {"documents": asked.documents[: len(asked.documents) - rng.randint(1, 9)]}
    sizes = asked.sizes.copy()
    sizes[rng.randrange(len(sizes))] += rng.randint(1, 30)
    return {"sizes": sizes}


def built(asked: Asked) -> Maps:
    from megatron.data.gpt2_dataset import _build_index_mappings

    with tempfile.TemporaryDirectory() as folder:
        maps = _build_index_mappings(
            "train",
            str(Path(folder) / "text"),
            asked.documents,
            asked.sizes,
            None,
            asked.samples,
            asked.epochs,
            asked.seq_length,
            asked.seed,
            asked.packing,
            allow_chopped=asked.allow_chopped,
        )
        return Maps(*(np.array(part) for part in maps))


def rows_agree(asked: Asked, maps: Maps) -> bool:
    """Whether the local engine's rows hold the tokens that GPT-NeoX's dataset reads."""
    from megatron.data.gpt2_dataset import GPT2Dataset

    from kisl_plugin.indexed import IndexedDataset, IndexedWriter
    from kisl_plugin.local.data import PackedRows

    with tempfile.TemporaryDirectory() as folder:
        prefix, token = Path(folder) / "text", 0
        with IndexedWriter(prefix, 60_000) as writer:
            for size in asked.sizes:
                writer.add([*range(token, token + int(size))])
                token += int(size)
        corpus = IndexedDataset(prefix)
        if sum(asked.sizes[asked.documents]) <= asked.seq_length:
            return True
        ours = PackedRows(corpus, asked.documents, asked.samples, asked.seq_length, asked.seed)
        from megatron.data.indexed_dataset import make_dataset

        theirs = GPT2Dataset(
            "train",
            str(prefix),
            asked.documents,
            make_dataset(str(prefix), "mmap", True),
            asked.samples,
            None,
            asked.seq_length,
            asked.seed,
        )
        pairs = ((ours[i]["text"], theirs[i]["text"]) for i in range(len(theirs)))
        return len(ours) == len(theirs) and all(np.array_equal(one, other) for one, other in pairs)


if __name__ == "__main__":
    main()
