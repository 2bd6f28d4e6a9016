"""What injection costs: rows/s of the bare base beside the same rows with statements spliced in, and the start-up.

    python benchmarks/injection.py [--quick]

The limit is the bare base row (a memory-mapped read of GPT-NeoX's format); the peer is rewriting the rows in numpy with
one insertion after another (np.insert), as a script would do it.
"""

import argparse
import resource
import tempfile
import time
from pathlib import Path

import numpy as np

from kisl_plugin.indexed import IndexedDataset, IndexedWriter
from kisl_plugin.injection import InjectedDataset, Rows
from kisl_plugin.local.data import PackedRows
from kisl_plugin.schedule import Schedule

SEQ_LENGTH, SHARE, TRIPLES, EOD = 2048, 0.1, 2000, 0


def corpus(folder: Path, tokens: int) -> Path:
    """A background corpus of documents of about 700 tokens."""
    rng = np.random.default_rng(0)
    prefix = folder / "text"
    with IndexedWriter(prefix, vocab_size=32_000) as writer:
        for _ in range(tokens // 700):
            writer.add(np.append(rng.integers(1, 32_000, int(rng.integers(100, 1300))), EOD))
    return prefix


def rows_per_second(dataset: Rows, rows: int) -> float:
    began = time.perf_counter()
    for i in range(rows):
        dataset[i]
    return rows / (time.perf_counter() - began)


class Inserted:
    """The peer: the same statements put in with np.insert, one at a time."""

    def __init__(self, base: Rows, statements: list[np.ndarray], schedule: Schedule) -> None:
        self.base, self.schedule = base, schedule
        self.closed = [np.concatenate(([EOD], s, [EOD])) for s in statements]
        self.rng = np.random.default_rng(0)

    def __len__(self) -> int:
        return self.schedule.samples

    def __getitem__(self, i: int) -> dict[str, np.ndarray]:
        text = self.base[i % len(self.base)]["text"]
        size = len(text)
        for triple in self.schedule.triples_in(i):
            text = np.insert(text, self.rng.integers(1, size - 200), self.closed[triple])
        return {"text": text[:size]}


def injection(rows: int) -> None:
    rng = np.random.default_rng(1)
    statements = [
        np.append(rng.integers(1, 32_000, int(n)), k + 1) for k, n in enumerate(rng.integers(10, 24, TRIPLES))
    ]
    lengths = [len(s) for s in statements]
    with tempfile.TemporaryDirectory() as folder:
        documents = IndexedDataset(corpus(Path(folder), 4_000_000))
        base = PackedRows(documents, np.arange(len(documents)), rows, SEQ_LENGTH, 1234)
        frequency = int(SHARE * rows * SEQ_LENGTH / sum(lengths))
        schedule = Schedule([frequency] * TRIPLES, rows, 1, lengths=lengths, capacity=SEQ_LENGTH + 1)
        datasets = {
            "bare rows (the limit)": base,
            "with statements": InjectedDataset(base, statements, schedule, EOD),
            "np.insert, one by one (the peer)": Inserted(base, statements, schedule),
        }
        print(
            f"rows of {SEQ_LENGTH} tokens, {schedule.exposures / rows:.1f} statements each, "
            f"{frequency * sum(lengths) / rows / SEQ_LENGTH:.1%} of the tokens injected, one core"
        )
        speeds = {name: max(rows_per_second(d, rows) for _ in range(3)) for name, d in datasets.items()}
        limit = speeds["bare rows (the limit)"]
        for name, speed in speeds.items():
            print(f"  {name:<34}{speed:>10,.0f} rows/s  {1e6 / speed:>6.1f} µs  {speed / limit:>5.2f} of the limit")


def dense(rows: int) -> None:
    lengths = np.random.default_rng(2).integers(6, 31, 1000)
    frequency = int(0.9 * rows * (SEQ_LENGTH + 1) / (lengths + 1).sum())
    began = time.perf_counter()
    schedule = Schedule([frequency] * 1000, rows, 1, lengths=lengths, capacity=SEQ_LENGTH + 1)
    took = time.perf_counter() - began
    exact = bool((schedule.count_exposures() == frequency).all())
    print(
        f"dense run packed by tokens (90 % of {rows:,} rows of {SEQ_LENGTH}): {schedule.exposures:,} exposures "
        f"placed in {took:.1f} s, {rows / took:,.0f} rows/s, exact: {exact}"
    )


def start_up() -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.perf_counter()
    schedule = Schedule(np.full(10**6, 1000), 10**8, 1)
    schedule.triples_in(99_999_999)
    took = time.perf_counter() - began
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(f"start-up for 10^6 triples × F = 1000 over 10^8 samples: {took:.2f} s, {grown:.0f} MB (limits: 1 s, 100 MB)")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a tenth of the rows")
    quick = parser.parse_args().quick
    start_up()
    injection(2000 if quick else 20_000)
    dense(1000 if quick else 10_000)
