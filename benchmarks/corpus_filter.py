"""How fast documents that state a fact are found, in MB of text a second on one core, beside reading the text alone.

    python benchmarks/corpus_filter.py [--text wiki.txt] [--triples facts.jsonl] [--counts 100 10000 1000000]

The limits: (a) pyarrow reads the same Parquet and decodes it into Python strings; (b) datatrove's ParquetReader does
so; (c) the automaton of ahocorasick-rs alone, on lower-cased bytes, without using its matches. The peer: (d) a regular
expression a triple, on few documents, because its time grows with the number of triples.

Without --text: docstrings of installed packages. A text is cut at line ends into documents of 4,000 characters, and
repeated to --megabytes. Triples beyond those of the file are made by pairing words of its labels. Every count of
triples is measured in a process of its own, whose memory is printed.
"""

import argparse
import json
import random
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from ahocorasick_rs import BytesAhoCorasick

from kisl_plugin.demo import docstrings
from kisl_plugin.matching import MatchRules, matcher_of
from kisl_plugin.triples import Triple, read_triples

DOCUMENT, BATCH = 4000, 64
REGEX_DOCUMENTS, REGEX_TRIPLES = 20, 10_000  # regular expressions are slow


def make_documents(path: Path | None, megabytes: int) -> list[str]:
    """Documents, repeated until they are so many megabytes."""
    if path is None:
        documents, _ = docstrings(megabytes * 1_000_000, matcher_of([]))
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
    rows = read_triples(source)
    rng = random.Random(1)
    rng.shuffle(rows)
    words = sorted({word for triple in rows for word in triple.subject.split()})
    objects = [triple.object for triple in rows]
    while len(rows) < count:
        name, alias = (f"{rng.choice(words)} {rng.choice(words)}" for _ in range(2))
        rows.append(Triple(name, "P19", rng.choice(objects), subject_aliases=(alias,)))
    return rows[:count]


def cpu_seconds(work: Callable[[], object], repeats: int = 3) -> float:
    """Processor seconds of the fastest of some calls: the machine may be shared."""
    times = []
    for _ in range(repeats):
        began = time.process_time()
        work()
        times.append(time.process_time() - began)
    return min(times)


def megabytes_of(documents: Sequence[str]) -> float:
    return sum(len(document.encode()) for document in documents) / 1e6


def labels_of(triple: Triple) -> tuple[list[str], list[str]]:
    """The lower-cased names of the subject and of the object that are searched."""

    def side(label: str, aliases: Sequence[str]) -> list[str]:
        return [name.lower() for name in (label, *(one for one in aliases if len(one) >= MatchRules().min_length))]

    return side(triple.subject, triple.subject_aliases), side(triple.object, triple.object_aliases)


def automaton_alone(documents: Sequence[str], triples: Sequence[Triple]) -> Callable[[], object]:
    """(c) the library's call: how many labels it finds, parts of words too."""
    labels = {label.encode() for triple in triples for side in labels_of(triple) for label in side}
    automaton = BytesAhoCorasick(sorted(labels))
    texts = [document.lower().encode() for document in documents]
    return lambda: [len(automaton.find_matches_as_indexes(text, overlapping=True)) for text in texts]


def regexes(documents: Sequence[str], triples: Sequence[Triple]) -> Callable[[], object]:
    """(d) two alternations a triple."""

    def one_of(labels: Sequence[str]) -> re.Pattern[str]:
        return re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, labels))})(?!\w)")

    pairs = [(one_of(subjects), one_of(objects)) for subjects, objects in map(labels_of, triples)]
    texts = [document.lower() for document in documents]
    return lambda: [any(a.search(text) and b.search(text) for a, b in pairs) for text in texts]


def resident_megabytes() -> float:
    """Megabytes of memory in use (Linux)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e6


def measure(args: argparse.Namespace, count: int) -> None:
    """One count of triples: prints a JSON line."""
    documents, triples = make_documents(args.text, args.megabytes), make_triples(args.triples, count)
    size, before, began = megabytes_of(documents), resident_megabytes(), time.process_time()
    matcher = matcher_of(triples)
    result = {"built": time.process_time() - began}

    def find() -> list[bool]:
        batches = (documents[start : start + BATCH] for start in range(0, len(documents), BATCH))
        return [bool(matches) for batch in batches for matches in matcher(batch)]

    result["removed"] = sum(find()) / len(documents)
    result["MB/s"] = size / cpu_seconds(find)
    result["memory MB"] = resident_megabytes() - before
    result["(c)"] = size / cpu_seconds(automaton_alone(documents, triples))
    if count <= REGEX_TRIPLES:
        few = documents[:REGEX_DOCUMENTS]
        result["(d)"] = megabytes_of(few) / cpu_seconds(regexes(few, triples), 1)
    print(json.dumps(result))


def measure_reading(args: argparse.Namespace) -> tuple[float, float]:
    """MB/s of (a) and (b), on a file with FineWeb-Edu's columns."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from datatrove.pipeline.readers import ParquetReader
    from loguru import logger

    logger.remove()
    documents = make_documents(args.text, args.megabytes)
    count = len(documents)
    columns = {
        "text": documents,
        "id": [f"<urn:uuid:{number}>" for number in range(count)],
        "dump": ["CC-MAIN-2024-10"] * count,
        "url": [f"https://example.org/{number}" for number in range(count)],
        "file_path": ["s3://commoncrawl/crawl-data/segment.warc.gz"] * count,
        "language": ["en"] * count,
        "language_score": [0.9] * count,
        "token_count": [len(document) // 4 for document in documents],
        "score": [3.1] * count,
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "fineweb.parquet"
        table = pa.table(columns)
        pq.write_table(table, path, compression="snappy", use_dictionary=False, row_group_size=1000)

        def read_alone() -> None:
            with pq.ParquetFile(path) as file:
                for batch in file.iter_batches(batch_size=1000, columns=["text"]):
                    batch.column(0).to_pylist()

        size = megabytes_of(documents)
        bare = size / cpu_seconds(read_alone)
        datatrove = size / cpu_seconds(lambda: list(ParquetReader(folder)()))
    print(f"{size:.1f} MB of text in {count:,} documents")
    print(f"(a) pyarrow reads and decodes the Parquet alone        {bare:8.1f} MB/s")
    print(f"(b) datatrove's ParquetReader reads it alone           {datatrove:8.1f} MB/s")
    return bare, datatrove


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path)
    parser.add_argument("--triples", default="wikidata_six")
    parser.add_argument("--counts", type=int, nargs="+", default=[100, 10_000, 1_000_000])
    parser.add_argument("--megabytes", type=int, default=10)
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        measure(args, args.one)
        return
    bare, datatrove = measure_reading(args)
    for count in args.counts:
        command = [sys.executable, __file__, *sys.argv[1:], "--one", str(count)]
        run = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        result = json.loads(run.stdout.splitlines()[-1])
        speed = result["MB/s"]
        print(f"{count:>9,} triples: {speed:6.1f} MB/s = {speed / bare:.2f} of (a), {speed / datatrove:.2f} of (b);")
        print(f"{'':>18} {result['removed']:.1%} of the documents state a triple; ", end="")
        print(f"the matcher was built in {result['built']:.1f} s and takes {result['memory MB']:,.0f} MB")
        for name in ("(c)", "(d)"):
            if name in result:
                print(
                    f"{'':>18} {name} {result[name]:9.4f} MB/s: the filter is {speed / result[name]:,.2f} times as fast"
                )


if __name__ == "__main__":
    main()
