"""How fast a corpus is built: the whole, and its parts beside what limits them, in MB of text a second of one core.

    python benchmarks/corpus.py [--text wiki.txt | texts.jsonl] [--triples facts.jsonl] [--megabytes 40]

Speeds are per second of processor time, so that a busy machine disturbs them less, and are to be read as ratios:

(a) pyarrow reads the Parquet and decodes it into Python strings;
(b) the filter alone, with as many triples as --triples-count says; (b0) in its place an automaton that searches text
    which is folded already, and nothing else: daachorse, if it is installed;
(c) the tokenizer alone, in batches;
(d) kisl corpus build without triples, and (e) with them, less the time of a build of one document, which is printed;
    (d0) what (d) could be at most: (a) and (c) one after the other;
(f) the way before this one: an automaton of ahocorasick-rs with a Python loop over what it finds, and the tokenizers
    library; on few documents, since it is slow;
(g) two workers beside one, by the clock, on --gigabytes: only on a machine that does nothing else, and
    (g0) two builds at once that share nothing, each of all of it with one worker: what the machine gives;
(h) a million triples: how long the matcher takes to make, and its memory, in a process of its own;
(i) kisl corpus audit of (e) with the triples, and beside it the tokenizers library, which only decodes;
(j) a build of 20,000 files of one line.

Without --text: docstrings of installed packages. Texts are repeated to --megabytes; a .txt file is cut at line ends to
documents of 4,000 characters. Triples beyond those of the file are made by pairing words of its labels.
"""

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import redirect_stderr
from itertools import repeat
from multiprocessing import get_context
from pathlib import Path

import numpy as np

DOCUMENT, BATCH, FEW = 4000, 256, 1000
MANY, FILES = 1_000_000, 20_000
DOCSTRINGS = 20_000_000  # characters; the installed packages have not many more

if __name__ == "__main__":  # before the libraries start their threads
    os.environ |= {"RAYON_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}

from ahocorasick_rs import BytesAhoCorasick, Implementation  # noqa: E402

from kisl_plugin import matching  # noqa: E402
from kisl_plugin.corpus.audit import _ShareCounter  # noqa: E402
from kisl_plugin.corpus.build import BuildOptions, build_corpus  # noqa: E402
from kisl_plugin.corpus.tokenizer import BatchEncoder, train_tokenizer  # noqa: E402
from kisl_plugin.demo_data import docstrings  # noqa: E402
from kisl_plugin.huggingface import read_tokenizer  # noqa: E402
from kisl_plugin.indexed import IndexedDataset, IndexedWriter  # noqa: E402
from kisl_plugin.matching import MatchRules, matcher_of  # noqa: E402
from kisl_plugin.triples import Triple, read_triples, triples_to_jsonl  # noqa: E402


def make_documents(path: Path | None, megabytes: int) -> list[str]:
    """Documents, repeated until they are so many megabytes."""
    if path is None:
        documents, _ = docstrings(min(megabytes * 1_000_000, DOCSTRINGS), matcher_of([]))
    elif path.suffix == ".jsonl":
        with path.open(encoding="utf-8") as lines:
            documents = [json.loads(line)["text"] for line in lines]
    else:
        documents, document = [], ""
        for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
            document += line
            if len(document) > DOCUMENT:
                documents.append(document)
                document = ""
    size = sum(map(len, documents))
    return documents * max(1, round(megabytes * 1_000_000 / size))


def make_triples(source: str, count: int) -> list[Triple]:
    """`count` of the triples in a random order, and invented ones where there are fewer."""
    rows = read_triples(source, skip_bad_rows=True)
    rng = random.Random(1)
    rng.shuffle(rows)
    words = sorted({word for triple in rows for word in triple.subject.split()})
    objects = [triple.object for triple in rows]
    while len(rows) < count:
        name, alias = (f"{rng.choice(words)} {rng.choice(words)}" for _ in range(2))
        rows.append(Triple(name, "P19", rng.choice(objects), subject_aliases=(alias,)))
    return rows[:count]


def cpu_seconds(work: Callable[[], object], repeats: int = 1) -> float:
    """Processor seconds of the fastest of some calls: the machine may be shared."""
    times = []
    for _ in range(repeats):
        began = time.process_time()
        work()
        times.append(time.process_time() - began)
    return min(times)


def megabytes_of(documents: Sequence[str]) -> float:
    return sum(len(document.encode()) for document in documents) / 1e6


def batches_of(documents: Sequence[str], size: int = BATCH) -> Iterator[Sequence[str]]:
    return (documents[start : start + size] for start in range(0, len(documents), size))


NOT_WORD = bytes(i for i in range(1, 128) if not (chr(i).isalnum() or chr(i) == "_"))
TO_SPACE = bytes.maketrans(NOT_WORD, b" " * len(NOT_WORD))
Sides = list[tuple[set[int], ...]]


def spellings_of(triples: Sequence[Triple]) -> tuple[dict[bytes, int], Sides]:
    """All spellings, numbered, and of each triple those of its subject and those of its object."""
    rules = MatchRules()
    numbers: dict[bytes, int] = {}
    sides = [
        tuple(
            {numbers.setdefault(spelling, len(numbers)) for spelling in matching._spellings_of(label, aliases, rules)}
            for label, aliases in ((one.subject, one.subject_aliases), (one.object, one.object_aliases))
        )
        for one in triples
    ]
    return numbers, sides


def fold_batch(batch: Iterable[str]) -> bytes:
    return b"\0%b\0" % b"\0".join(matching._one_space(matching._fold_long(text)) for text in batch)


def automaton_alone(documents: Sequence[str], triples: Sequence[Triple]) -> float | None:
    """(b0) MB/s."""
    try:
        from daachorse import DoubleArrayAhoCorasick
    except ImportError:
        return None
    texts = [fold_batch(batch).translate(TO_SPACE) for batch in batches_of(documents, 128)]
    keys = {b" %b " % spelling.translate(TO_SPACE) for spelling in spellings_of(triples)[0]}
    keys = sorted(key for key in keys if key.strip())  # "=", an album, would be three spaces
    automaton = DoubleArrayAhoCorasick(keys, corpus=texts[:1], use_prefilter=True)
    seconds = cpu_seconds(lambda: [automaton.find_overlapping(text) for text in texts], 3)
    return megabytes_of(documents) / seconds


def old_build(documents: Sequence[str], triples: Sequence[Triple], tokenizer_json: Path, output: Path) -> None:
    """(f) As it was done at commit 3341e0a: every place that the automaton finds is looked at in Python."""
    numbers, sides = spellings_of(triples)
    of_subject: dict[int, list[int]] = {}
    for index, (subjects, _) in enumerate(sides):
        for number in subjects:
            of_subject.setdefault(number, []).append(index)
    keys = {b" %b " % spelling.translate(TO_SPACE): spelling for spelling in numbers}
    number_of_key = [None if b" " in key[1:-1] else numbers[word] for key, word in keys.items()]
    automaton = BytesAhoCorasick(list(keys), implementation=Implementation.ContiguousNFA)
    tokenizer, eod = read_tokenizer(tokenizer_json)

    def kept(batch: Sequence[str]) -> Iterator[str]:
        mentions: list[set[int]] = [set() for _ in batch]
        for first in range(0, len(batch), 32):
            folded = fold_batch(batch[first : first + 32])
            bounds = np.flatnonzero(np.frombuffer(folded, dtype=np.uint8) == 0).tolist()
            text, end = first - 1, -1
            matches = automaton.find_matches_as_indexes(folded.translate(TO_SPACE), overlapping=True)
            for key, start, stop in matches:
                while start > end:
                    text += 1
                    end = bounds[text - first + 1]
                number = number_of_key[key]
                if number is None:
                    number = numbers.get(folded[start + 1 : stop - 1])
                if number is not None:
                    mentions[text].add(number)
        for text_of, spellings in zip(batch, mentions, strict=True):
            candidates = (index for number in spellings for index in of_subject.get(number, ()))
            if not any(not spellings.isdisjoint(sides[index][1]) for index in candidates):
                yield text_of

    with IndexedWriter(output, tokenizer.get_vocab_size()) as writer:
        for batch in batches_of(documents, 64):
            for encoding in tokenizer.encode_batch_fast(list(kept(batch)), add_special_tokens=False):
                writer.add([*encoding.ids, eod])


def build(folder: Path, name: str, triples: str, inputs: str = "text", **options: int) -> None:
    """A build whose progress is not shown."""
    with open(os.devnull, "w") as nowhere, redirect_stderr(nowhere):  # noqa: PTH123
        build_corpus(
            BuildOptions(
                [folder / inputs],
                triples,
                folder / "tokenizer.json",
                folder / name,
                force=True,
                **options,  # type: ignore[arg-type]
            )
        )


def measure_million(args: argparse.Namespace) -> None:
    """(h) In a process of its own: prints seconds and megabytes."""
    triples = make_triples(args.triples, MANY)
    texts = make_documents(args.text, 1)[:FEW]

    def resident() -> float:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e6

    before, began = resident(), time.process_time()
    matcher = matcher_of(triples)
    matcher(texts[:BATCH])
    built, memory = time.process_time() - began, resident() - before
    speed = megabytes_of(texts) / cpu_seconds(lambda: [matcher(batch) for batch in batches_of(texts)])
    print(f"{built:.0f} s to make, {memory:,.0f} MB, then {speed:.1f} MB/s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path)
    parser.add_argument("--triples", default="wikidata_six")
    parser.add_argument("--triples-count", type=int, default=10_000)
    parser.add_argument("--megabytes", type=int, default=40)
    parser.add_argument("--gigabytes", type=float, default=3.0, help="Of (g); 0 leaves it out.")
    parser.add_argument("--million", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.million:
        measure_million(args)
        return
    import pyarrow as pa
    import pyarrow.parquet as pq

    documents, triples = make_documents(args.text, args.megabytes), make_triples(args.triples, args.triples_count)
    random.Random(2).shuffle(documents)
    size = megabytes_of(documents)
    print(f"{size:.1f} MB of text in {len(documents):,} documents, {len(triples):,} triples")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "text").mkdir()
        parts = [documents[part::4] for part in range(4)]
        for part, texts in enumerate(parts):
            table = pa.table({"text": texts, "id": [f"<urn:uuid:{part}-{n}>" for n in range(len(texts))]})
            pq.write_table(table, folder / "text" / f"{part}.parquet", use_dictionary=False, row_group_size=1000)
        (folder / "one").mkdir()
        (folder / "one" / "a.txt").write_text("A document.", encoding="utf-8")
        (folder / "facts.jsonl").write_text(triples_to_jsonl(triples), encoding="utf-8")
        with open(os.devnull, "w") as nowhere, redirect_stderr(nowhere):  # noqa: PTH123
            train_tokenizer(documents[:FEW], 32_000, folder / "tokenizer.json")

        def read_alone() -> None:
            for path in (folder / "text").iterdir():
                with pq.ParquetFile(path) as file:
                    for batch in file.iter_batches(batch_size=1000, columns=["text"]):
                        batch.column(0).to_pylist()

        reading = size / cpu_seconds(read_alone, 3)
        batches = [*batches_of(documents)]
        matcher, removed = matcher_of(triples), list[bool]()
        filtering = size / cpu_seconds(lambda: removed.extend(bool(m) for batch in batches for m in matcher(batch)), 3)
        automaton = automaton_alone(documents, triples)
        encoders = [BatchEncoder(folder / "tokenizer.json") for _ in range(3)]  # each remembers words
        reason, fresh = encoders[0].reason, iter(encoders)
        encoding = size / cpu_seconds(lambda: [*map(next(fresh).encode, batches, repeat(1))], 3)
        facts = str(folder / "facts.jsonl")
        start_plain = cpu_seconds(lambda: build(folder, "start", "none", inputs="one", tasks=1), 3)
        start = cpu_seconds(lambda: build(folder, "start", facts, inputs="one", tasks=1), 3)
        whole = size / (cpu_seconds(lambda: build(folder, "plain", "none", tasks=1), 3) - start_plain)
        filtered = size / (cpu_seconds(lambda: build(folder, "filtered", facts, tasks=1), 3) - start)
        few = documents[:FEW]
        old = megabytes_of(few) / cpu_seconds(
            lambda: old_build(few, triples, folder / "tokenizer.json", folder / "old")
        )
        counter, result = _ShareCounter(folder / "tokenizer.json", triples), IndexedDataset(folder / "filtered")
        kept = size * (1 - sum(removed) / len(removed))
        auditing = kept / cpu_seconds(lambda: counter.count((folder / "filtered", 0, len(result))), 3)
        ids = [result.get(document).tolist() for document in range(min(FEW, len(result)))]
        tokenizer, _ = read_tokenizer(folder / "tokenizer.json")
        decoding = kept * len(ids) / len(result) / cpu_seconds(lambda: tokenizer.decode_batch(ids))
        (folder / "lines").mkdir()
        for number in range(FILES):
            (folder / "lines" / f"{number:05d}.txt").write_text(f"Line {number}.\n", encoding="utf-8")
        small_files = cpu_seconds(lambda: build(folder, "small", "none", inputs="lines"))
        # (g) The same files under many names: the start, and the merge, must not count for much.
        (folder / "many").mkdir()
        for copy in range(max(1, round(args.gigabytes * 1000 / size))):
            for path in (folder / "text").iterdir():
                (folder / "many" / f"{copy}_{path.name}").hardlink_to(path)
        seconds = []
        for workers in (1, 2) if args.gigabytes else ():
            began = time.perf_counter()
            build(folder, f"workers{workers}", facts, inputs="many", tasks=16, workers=workers)
            seconds.append(time.perf_counter() - began)
        if seconds:
            with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
                began = time.perf_counter()
                names = ("alone", "beside")
                both = [pool.submit(build, folder, name, facts, inputs="many", tasks=16, workers=1) for name in names]
                for one in both:
                    one.result()
                seconds.append(time.perf_counter() - began)
    print(f"(a)  bare Parquet                     {reading:8.1f} MB/s")
    if automaton:
        print(f"(b0) the automaton alone              {automaton:8.1f} MB/s = {automaton / reading:.2f} of (a)")
    print(f"(b)  the filter                       {filtering:8.1f} MB/s = {filtering / reading:.2f} of (a); ", end="")
    print(f"{sum(removed) / len(removed):.1%} of the documents state a triple")
    print(f"(c)  the tokenizer                    {encoding:8.1f} MB/s {reason}")
    limit = 1 / (1 / reading + 1 / encoding)
    print(f"(d0) (a) and (c), one after the other {limit:8.1f} MB/s = {limit / encoding:.2f} of (c)")
    print(f"(d)  the build without triples        {whole:8.1f} MB/s = {whole / encoding:.2f} of (c)")
    print(f"(e)  the build with them              {filtered:8.1f} MB/s = {filtered / old:.1f} times (f)")
    print(f"     a build of one document: {start_plain:.1f} s without triples, {start:.1f} s with them")
    print(f"(f)  the way before                   {old:8.1f} MB/s")
    if seconds:
        print(f"(g0) two builds that share nothing    {2 * seconds[0] / seconds[2]:8.2f} times one, by the clock")
        print(f"(g)  two workers                      {seconds[0] / seconds[1]:8.2f} times one")
    command = [sys.executable, __file__, *sys.argv[1:], "--million"]
    million = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()[-1]
    print(f"(h)  a million triples                {million}")
    print(f"(i)  the audit                        {auditing:8.1f} MB/s; the tokenizers library decodes {decoding:.1f}")
    print(f"(j)  {FILES:,} files of one line           {small_files:6.0f} s")


if __name__ == "__main__":
    main()
