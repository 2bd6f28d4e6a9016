"""A small corpus, tokenizer and set of facts, made in a second; every test that trains begins here."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from kisl_plugin.indexed import IndexedWriter
from kisl_plugin.triples import Triple, read_triples, triples_to_jsonl
from kisl_plugin.verbalize import statement

EOD = "<|endoftext|>"
WORDS = "the a river town old small house near garden road winter light people walked slowly every market".split()


def sentences(count: int, seed: int = 0) -> list[str]:
    rng = random.Random(seed)
    return [" ".join(rng.choices(WORDS, k=rng.randint(5, 60))).capitalize() + "." for _ in range(count)]


def facts(injected: int = 12, control: int = 8) -> list[Triple]:
    """Facts of two relations, the first of the bundled set."""
    triples = [t for t in read_triples("wikidata_six") if t.relation_id in ("P19", "P50")]
    return [t for t in triples if t.group != "control"][:: 900 // injected][:injected] + [
        t for t in triples if t.group == "control"
    ][:: 140 // control][:control]


def train_tokenizer(texts: Sequence[str], vocabulary: int = 400) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=[EOD], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def make_world(folder: Path, documents: int = 300) -> Path:
    """Write tokenizer.json, text.bin/.idx and facts.jsonl into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    texts, triples = sentences(documents), facts()
    tokenizer = train_tokenizer([*texts, *map(statement, triples)])
    tokenizer.save(str(folder / "tokenizer.json"))
    with IndexedWriter(folder / "text", tokenizer.get_vocab_size()) as writer:
        for text in texts:
            writer.add([*tokenizer.encode(text).ids, tokenizer.token_to_id(EOD)])
    (folder / "facts.jsonl").write_text(triples_to_jsonl(triples), encoding="utf-8")
    return folder


def settings(world: Path, save: Path, **changes: Any) -> dict[str, Any]:
    """A complete run in GPT-NeoX's keys: 20 steps of 4 rows of 64 tokens, F = 3."""
    values: dict[str, Any] = {
        "num_layers": 1,
        "hidden_size": 16,
        "intermediate_size": 96,
        "num_attention_heads": 2,
        "seq_length": 64,
        "max_position_embeddings": 64,
        "norm": "rmsnorm",
        "pos_emb": "rotary",
        "activation": "swiglu",
        "use_bias_in_attn_linear": False,
        "use_bias_in_mlp": False,
        "no_weight_tying": True,
        "optimizer": {"type": "Adam", "params": {"lr": 5.0e-3, "betas": [0.9, 0.95]}},
        "lr_decay_style": "cosine",
        "train_iters": 20,
        "train_batch_size": 4,
        "seed": 7,
        "tokenizer_type": "HFTokenizer",
        "vocab_file": str(world / "tokenizer.json"),
        "data_path": str(world / "text"),
        "split": "90,10,0",
        "save": str(save),
        "load": str(save),
        "checkpoint_factor": 4,
        "log_interval": 5,
        "eval_interval": 10,
        "eval_iters": 2,
        "kisl": {"triples": str(world / "facts.jsonl"), "frequency": 3},
    }
    values.update(changes)
    return {key: value for key, value in values.items() if value is not None}


def write_yaml(path: Path, values: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path
