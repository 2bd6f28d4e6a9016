"""How fast documents that state a fact are found, in MB of text a second on one core, beside reading the text alone.

    python benchmarks/corpus_filter.py [--text wiki.txt] [--triples facts.jsonl] [--counts 100 10000 1000000]

The limits: (a) pyarrow reading and decoding the same Parquet into Python strings; (a') datatrove's own ParquetReader
doing so, as FineWeb was read; (d) ahocorasick-rs alone: text that is lower-cased bytes already, nothing done with what
it finds. The peers: (b) pyahocorasick in a Python loop over the normalised text, which must find the same documents;
(c) a regular expression a triple, on few documents, since it takes the longer the more triples there are.

Without --text: docstrings of installed packages. A text is cut at line ends into documents of 4,000 characters, and
repeated to --megabytes. Triples beyond those of the file are made by pairing words of its labels. Every count of
triples is measured in a process of its own, whose memory is told.
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
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path

from kisl_plugin.demo import docstrings
from kisl_plugin.matching import MatchRules, matcher_of
from kisl_plugin.triples import Triple, read_triples

DOCUMENT, BATCH, REGEX_DOCUMENTS = 4000, 1000, 20


def documents_of(path: Path | None, megabytes: int) -> list[str]:
    """Documents, repeated until they are so many megabytes."""
    if path is None:
        documents = docstrings(megabytes * 1_000_000, matcher_of([]))[0]
    else:
        documents, document = [], ""
        for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
            document += line
            if len(document) > DOCUMENT:
                documents.append(document)
                document = ""
    size = sum(map(len, documents))
    return documents * max(1, round(megabytes * 1_000_000 / size))


def triples_of(source: str, count: int) -> list[Triple]:
    """`count` of the triples, in an order mixed by seed, and made ones where there are fewer."""
    rows = read_triples(source)
    rng = random.Random(1)
    rng.shuffle(rows)
    words = sorted({word for triple in rows for word in triple.subject.split()})
    objects = [triple.object for triple in rows]
    while len(rows) < count:
        name = f"{rng.choice(words)} {rng.choice(words)}"
        other = f"{rng.choice(words)} {rng.choice(words)}"
        rows.append(Triple(name, "P19", rng.choice(objects), subject_aliases=(other,)))
    return rows[:count]


def seconds_of(work: Callable[[], object], repeats: int = 3) -> float:
    """Processor seconds of the fastest of some calls: the machine may be shared."""
    taken = []
    for _ in range(repeats):
        began = time.process_time()
        work()
        taken.append(time.process_time() - began)
    return min(taken)


def parquet_of(documents: Sequence[str], folder: Path) -> Path:
    """FineWeb-Edu's columns."""
    import pyarrow as pa
    import pyarrow.parquet as pq

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
        "int_score": [3] * count,
    }
    path = folder / "fineweb.parquet"
    pq.write_table(pa.table(columns), path, compression="snappy", use_dictionary=False, row_group_size=1000)
    return path


def read_alone(path: Path) -> None:
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as table:
        for batch in table.iter_batches(batch_size=BATCH, columns=["text"]):
            batch.column(0).to_pylist()


def read_by_datatrove(folder: Path) -> None:
    from datatrove.pipeline.readers import ParquetReader
    from loguru import logger

    logger.remove()
    for _ in ParquetReader(str(folder))():
        pass


def filtered(documents: Sequence[str], triples: Sequence[Triple]) -> Callable[[], list[int]]:
    """Ours: the documents that state a triple."""
    matcher = matcher_of(triples)

    def work() -> list[int]:
        batches = (documents[start : start + BATCH] for start in range(0, len(documents), BATCH))
        found = [matches for batch in batches for matches in matcher(batch)]
        return [number for number, matches in enumerate(found) if matches]

    return work


def plain(text: str) -> str:
    """What is searched, as a script would write it."""
    look_alikes = str.maketrans({**dict.fromkeys("’‘ʼʻ", "'"), **dict.fromkeys("‐‑‒–—―−", "-")})
    return " ".join(unicodedata.normalize("NFKC", text).casefold().translate(look_alikes).split())


def labels_of(triple: Triple) -> tuple[list[str], list[str]]:
    least = MatchRules().min_length

    def side(label: str, aliases: Sequence[str]) -> list[str]:
        return [plain(label), *(plain(alias) for alias in aliases if len(alias) >= least)]

    return side(triple.subject, triple.subject_aliases), side(triple.object, triple.object_aliases)


def is_word(char: str) -> bool:
    return char.isalnum() or char == "_" or unicodedata.category(char).startswith("M")


def in_a_loop(documents: Sequence[str], triples: Sequence[Triple]) -> Callable[[], list[int]]:
    """(b) pyahocorasick, its matches checked and paired in Python."""
    import ahocorasick

    automaton = ahocorasick.Automaton()
    of_subject: dict[str, list[int]] = {}
    objects = []
    for index, triple in enumerate(triples):
        names, others = labels_of(triple)
        for label in (*names, *others):
            automaton.add_word(label, label)
        for name in names:
            of_subject.setdefault(name, []).append(index)
        objects.append(set(others))
    automaton.make_automaton()

    def states(text: str) -> bool:
        fenced = f" {plain(text)} "
        found = {
            label
            for end, label in automaton.iter(fenced)
            if not (is_word(fenced[end + 1]) or is_word(fenced[end - len(label)]))
        }
        return any(found & objects[index] for label in found for index in of_subject.get(label, ()))

    return lambda: [number for number, text in enumerate(documents) if states(text)]


def automaton_alone(documents: Sequence[str], triples: Sequence[Triple]) -> Callable[[], list[int]]:
    """(d) the library's call and nothing else: how many labels it finds, parts of words too."""
    from ahocorasick_rs import BytesAhoCorasick

    labels = {label.encode() for triple in triples for side in labels_of(triple) for label in side}
    automaton = BytesAhoCorasick(sorted(labels))
    texts = [document.lower().encode() for document in documents]
    return lambda: [len(automaton.find_matches_as_indexes(text, overlapping=True)) for text in texts]


def by_regexes(documents: Sequence[str], triples: Sequence[Triple]) -> Callable[[], list[int]]:
    """(c) two alternations a triple."""

    def one_of(labels: Sequence[str]) -> re.Pattern[str]:
        return re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, labels))})(?!\w)")

    pairs = [(one_of(names), one_of(others)) for names, others in map(labels_of, triples)]

    def work() -> list[int]:
        texts = map(plain, documents)
        return [n for n, text in enumerate(texts) if any(a.search(text) and b.search(text) for a, b in pairs)]

    return work


def resident() -> float:
    """Megabytes of memory in use (Linux)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e6


def measure(args: argparse.Namespace, count: int) -> None:
    """One count of triples: prints a JSON line."""
    documents = documents_of(args.text, args.megabytes)
    triples = triples_of(args.triples, count)
    size = sum(len(document.encode()) for document in documents) / 1e6
    before = resident()
    began = time.perf_counter()
    ours = filtered(documents, triples)
    built = time.perf_counter() - began
    found = ours()
    result = {"MB/s": size / seconds_of(ours), "built": built, "memory MB": resident() - before}
    result["removed"] = len(found) / len(documents)
    result["automaton MB/s"] = size / seconds_of(automaton_alone(documents, triples))
    if count <= args.peers_up_to:
        few = documents[: max(1, len(documents) // args.megabytes)]
        loop = in_a_loop(few, triples)
        assert loop() == [number for number in found if number < len(few)], "the peer finds other documents"
        result["loop MB/s"] = sum(len(document.encode()) for document in few) / 1e6 / seconds_of(loop, 2)
        fewer = documents[:REGEX_DOCUMENTS]
        regexes = by_regexes(fewer, triples)
        result["regex MB/s"] = sum(len(document.encode()) for document in fewer) / 1e6 / seconds_of(regexes, 1)
    print(json.dumps(result))


def limits(args: argparse.Namespace) -> tuple[float, float]:
    documents = documents_of(args.text, args.megabytes)
    size = sum(len(document.encode()) for document in documents) / 1e6
    with tempfile.TemporaryDirectory() as folder:
        path = parquet_of(documents, Path(folder))
        bare, datatrove = (
            size / seconds_of(lambda: read_alone(path)),
            size / seconds_of(lambda: read_by_datatrove(Path(folder))),
        )
    print(f"{size:.1f} MB of text in {len(documents):,} documents")
    print(f"(a)  pyarrow reads and decodes the Parquet alone        {bare:8.1f} MB/s")
    print(f"(a') datatrove's ParquetReader reads it alone           {datatrove:8.1f} MB/s")
    return bare, datatrove


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path)
    parser.add_argument("--triples", default="wikidata_six")
    parser.add_argument("--counts", type=int, nargs="+", default=[100, 10_000, 1_000_000])
    parser.add_argument("--megabytes", type=int, default=10)
    parser.add_argument("--peers-up-to", type=int, default=10_000, help="triples; the peers are slow")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        measure(args, args.one)
        return
    bare, datatrove = limits(args)
    for count in args.counts:
        command = [sys.executable, __file__, *sys.argv[1:], "--one", str(count)]
        run = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        report(count, json.loads(run.stdout.splitlines()[-1]), bare, datatrove)


def report(count: int, found: dict[str, float], bare: float, datatrove: float) -> None:
    speed = found["MB/s"]
    print(f"{count:>9,} triples: ours {speed:6.1f} MB/s = {speed / bare:.2f} of (a), {speed / datatrove:.2f} of (a');")
    print(f"{'':>18} {found['removed']:.1%} of the documents state a triple; ", end="")
    print(f"the matcher was built in {found['built']:.1f} s and takes {found['memory MB']:,.0f} MB")
    for name, peer in (("(d)", "automaton MB/s"), ("(b)", "loop MB/s"), ("(c)", "regex MB/s")):
        if peer in found:
            print(f"{'':>18} {name} {found[peer]:9.4f} MB/s: ours is {speed / found[peer]:,.2f}×")


if __name__ == "__main__":
    main()
