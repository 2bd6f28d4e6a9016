"""Is the probe as fast as lm_eval's stock multiple choice, and are its numbers the same? One model, one process.

    python benchmarks/probe_speed.py                    # a random Llama of 35M parameters, vocabulary 32,000
    python benchmarks/probe_speed.py --shape 2m
    python benchmarks/probe_speed.py MODEL --items 200  # your own
    python benchmarks/probe_speed.py MODEL --starts     # `kisl probe` beside `lm_eval`, from start to results

The same documents are asked in three ways, in turn: as a plain multiple_choice task, with every option scored in full,
and with the question of the four options computed once. Timed is the whole evaluate(): building requests, tokenising,
scoring, metrics. Medians over the repeats; peak is the memory that a run needs beyond what was there before it.
"""

import argparse
import contextlib
import gc
import logging
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
from datasets import Dataset
from lm_eval import evaluate
from lm_eval.api.task import ConfigurableTask
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM

from kisl_plugin.demo_data import docstrings
from kisl_plugin.files import resource
from kisl_plugin.huggingface import EOD_TOKEN, write_model
from kisl_plugin.probe import scoring
from kisl_plugin.probe.scoring import shared_scores

# Vocabulary, hidden size, intermediate size, layers, heads.
SHAPES = {
    "2m": (4096, 128, 384, 5, 4),
    "35m": (32_000, 384, 1024, 6, 6),
    "160m": (50_304, 768, 2048, 12, 12),
}
TEXT = 4_000_000  # characters that the tokenizer is trained on
STOCK, IN_FULL, SHARED = "stock multiple_choice", "every option in full", "shared question"
WAYS = (STOCK, IN_FULL, SHARED)
ROW = "{:>5}  {:<22}{:>9}{:>15}{:>10}{:>12}{:>9}{:>12}{:>9}"


@dataclass
class Measured:
    """Seconds, the processor's seconds and peak MB of each repeat; the items' rows, the same in every repeat."""

    seconds: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)
    megabytes: list[float] = field(default_factory=list)
    samples: list[dict[str, Any]] = field(default_factory=list)


def random_model(folder: Path, shape: str) -> Path:
    """A random Llama whose byte-level BPE is trained on docstrings, so that names are several tokens long."""
    vocabulary, hidden, intermediate, layers, heads = SHAPES[shape]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=[EOD_TOKEN], initial_alphabet=alphabet, show_progress=False
    )
    texts, _ = docstrings(TEXT, lambda texts: [()] * len(texts))
    tokenizer.train_from_iterator(texts, trainer)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        bos_token_id=0,
        eos_token_id=0,
    )
    write_model(folder, LlamaForCausalLM(config), tokenizer, None, "")
    return folder


class StockChoice(ConfigurableTask):
    """The documents of kisl_wikidata as a multiple_choice task of lm_eval's own kind."""

    def __init__(self, docs: list[dict[str, Any]]) -> None:
        self._docs = docs
        metrics = [{"metric": name} for name in ("acc", "acc_norm", "acc_bytes")]
        super().__init__(
            config={
                "task": "stock",
                "output_type": "multiple_choice",
                "test_split": "test",
                "num_fewshot": 0,
                "doc_to_text": "context",
                "doc_to_choice": "options",
                "doc_to_target": "answer",
                "metric_list": metrics,
            }
        )

    def download(self, *_: Any, **__: Any) -> None:
        self.dataset = {"test": Dataset.from_list(self._docs)}


def ask(lm: HFLM, way: str, items: int, found: Measured) -> None:
    """One evaluate(), added to `found`."""
    manager = TaskManager(include_path=str(resource("tasks")), include_defaults=False)
    task = manager.load(["kisl_wikidata"])["tasks"]["kisl_wikidata"]
    if way == STOCK:
        task = StockChoice(list(task.test_docs())[:items])
    way_of_scoring = (lambda *_: None) if way == IN_FULL else shared_scores
    before = reset_peak()
    with patch.object(scoring, "shared_scores", way_of_scoring), silence():
        began, processor = time.perf_counter(), time.process_time()
        results = evaluate(lm, {"tasks": {task.task_name: task}}, limit=items)
        found.seconds.append(time.perf_counter() - began)
        found.processor.append(time.process_time() - processor)
    found.megabytes.append(peak() - before)
    (samples,) = results["samples"].values()
    found.samples = sorted(samples, key=lambda row: row["doc_id"])


@contextlib.contextmanager
def silence() -> Iterator[None]:
    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stderr(nowhere):
        yield


def reset_peak() -> float:
    """MB that this process holds; from now on `peak` is the most that it has held since (Linux)."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")
    return status("VmRSS")


def peak() -> float:
    return status("VmHWM")


def status(key: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) / 1024 for line in lines if line.startswith(f"{key}:"))


def measure(lm: HFLM, batch: int, items: int, repeats: int) -> dict[str, Measured]:
    lm.batch_size_per_gpu = batch
    found = {way: Measured() for way in WAYS}
    for repeat in range(repeats):
        for way in WAYS[repeat % 3 :] + WAYS[: repeat % 3]:  # none always comes first
            ask(lm, way, items, found[way])
    return found


def nats_per_token(samples: list[dict[str, Any]], counts: list[list[int]]) -> list[list[float]]:
    return [
        [-answer[0] / tokens for answer, tokens in zip(row["filtered_resps"], of_row, strict=True)]
        for row, of_row in zip(samples, counts, strict=True)
    ]


def show(batch: int, items: int, found: dict[str, Measured]) -> None:
    counts = [[answer[2] for answer in row["filtered_resps"]] for row in found[SHARED].samples]
    nats = {way: nats_per_token(measured.samples, counts) for way, measured in found.items()}
    stock = found[STOCK]
    for way, measured in found.items():
        speeds = sorted(items / seconds for seconds in measured.seconds)
        pairs = list(zip(nats[way], nats[STOCK], strict=True))
        apart = max(abs(a - b) for ours, theirs in pairs for a, b in zip(ours, theirs, strict=True))
        other = sum(ours.index(min(ours)) != theirs.index(min(theirs)) for ours, theirs in pairs)
        cells = (
            f"{statistics.median(speeds):.1f}",
            f"{speeds[0]:.1f} – {speeds[-1]:.1f}",
            f"{statistics.median(stock.seconds) / statistics.median(measured.seconds):.2f}",
            f"{statistics.median(stock.processor) / statistics.median(measured.processor):.2f}",
            f"{statistics.median(measured.megabytes):.0f}",
        )
        print(ROW.format(batch, way, *cells, *(("", "") if way == STOCK else (f"{apart:.1e}", other))), flush=True)


def compare(model: Path, batches: list[int], items: int, repeats: int) -> None:
    lm = HFLM(pretrained=str(model), dtype="float32", device="cpu", batch_size=1)
    ask(lm, SHARED, items, warm := Measured())
    samples = warm.samples
    lengths = [len(lm.tok_encode(row["doc"]["context"])) for row in samples]
    options = [answer[2] for row in samples for answer in row["filtered_resps"]]
    millions = sum(parameter.numel() for parameter in lm.model.parameters()) / 1e6
    print(
        f"{millions:.1f}M parameters, vocabulary {lm.model.config.vocab_size:,}; "
        f"{len(samples)} items: {statistics.mean(lengths):.1f} tokens of question, {statistics.mean(options):.1f} an "
        f"option; {repeats} repeats in turn, {torch.get_num_threads()} thread(s)"
    )
    head = ("batch", "way", "items/s", "min – max", "of stock", "processor", "peak MB", "nats/token", "choices")
    print(ROW.format(*head))
    for batch in batches:
        show(batch, len(samples), measure(lm, batch, items, repeats))
    print(
        "of stock: medians of the wall clock, and of the processor's time, which other programs disturb less\n"
        "nats/token: the largest difference from stock; choices: items whose lowest perplexity is another option's"
    )


def starts(model: Path) -> None:
    """Wall clock from the command to its results, for one model and for four."""
    with tempfile.TemporaryDirectory() as folder:
        copies = [str(shutil.copytree(model, Path(folder, str(k)))) for k in range(4)]
        ours = [sys.executable, "-m", "kisl_plugin", "probe", "--device", "cpu", "--output", f"{folder}/out"]
        theirs = [sys.executable, "-m", "lm_eval", "--tasks", "kisl_wikidata", "--device", "cpu", "--batch_size", "64"]
        theirs += ["--log_samples", "--output_path", f"{folder}/out", "--model_args"]
        for count in (1, 4):
            one_by_one = [[*theirs, f"pretrained={copy},dtype=float32"] for copy in copies[:count]]
            for name, calls in (("kisl probe", [[*ours, *copies[:count]]]), ("lm_eval", one_by_one)):
                print(f"{name:<12}{count} model(s){wall(calls):>8.1f} s", flush=True)


def wall(commands: list[list[str]]) -> float:
    began = time.perf_counter()
    for command in commands:
        subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="?", type=Path, metavar="MODEL", help="a Hugging Face folder")
    parser.add_argument("--shape", choices=SHAPES, default="35m", help="of the random model (default: 35m)")
    parser.add_argument("--items", type=int, default=400)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--starts", action="store_true", help="time the commands' starts instead")
    given = parser.parse_args()
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        model = given.model or random_model(Path(folder, "model"), given.shape)
        if given.starts:
            starts(model)
        else:
            compare(model, given.batch, given.items, given.repeats)


if __name__ == "__main__":
    main()
