"""What a build keeps on disk: its plan, a finished shard for each task, and the merged result.

Everything that a build needs to go on after a kill lies in OUTPUT.work; a shard is finished when its stamp is there.
"""

import csv
import io
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path

import yaml

from kisl_plugin.corpus.inputs import Piece
from kisl_plugin.errors import InputError, KislError
from kisl_plugin.files import hold_lock, no_formula, sha256, write_atomically
from kisl_plugin.indexed import IndexedDataset, file_of, token_type, write_index
from kisl_plugin.matching import MatchRules, unsearchable
from kisl_plugin.triples import read_triples

__all__ = ["NO_TRIPLES", "Corpus"]

NO_TRIPLES = "none"
LARGEST_BLEND = 254  # paths that GPT-NeoX blends
_COPY_BYTES = 8 << 20
_TABLE_COLUMNS = ("triple", "subject", "relation_id", "object", "group", "removed", "unsearchable")
_WEIGHTED_HEADER = """\
# Use these lines in place of data_path and split. Weights are the shards' tokens; the last shard (of several) is held
# out, since GPT-NeoX needs paths for validation and test too.
"""


class BuildPaths:
    """Where the parts of a build of `output` lie.

    `folder`, OUTPUT.work, is removed when the build is done; it holds the plan, triples and tokenizer as they were when
    the build began, and the shards. Results are the removed documents of each task, and the manifest, written last.
    """

    def __init__(self, output: Path) -> None:
        self.output = output
        self.folder = file_of(output, ".work")
        self.plan = self.folder / "plan.json"
        self.triples = self.folder / "triples.jsonl"
        self.tokenizer = self.folder / "tokenizer.json"
        self.shards = self.folder / "shards"
        self.excluded = file_of(output, ".excluded")
        self.manifest = file_of(output, ".json")

    def shard(self, rank: int) -> Path:
        """The files of a task's shard (.bin, .idx and its stamp, .json) without their endings."""
        return self.shards / f"{rank:05d}"

    def removed(self, rank: int) -> Path:
        """The documents that a task has removed; missing where there are none."""
        return self.excluded / f"{rank:05d}.jsonl"

    def bad(self, rank: int) -> Path:
        """The errors of the documents that a task could not read and has left out, a line each."""
        return self.folder / "bad" / f"{rank:05d}"

    def read_bytes(self, rank: int) -> Path:
        """The file in which a task notes how many bytes of its pieces it has read."""
        return self.folder / "read" / f"{rank:05d}"


@contextmanager
def claim(paths: BuildPaths) -> Iterator[None]:
    """Keep other builds of this output out while the block runs; a folder without a plan is removed at the end.

    Raises:
        KislError: another build is running.
        OSError: the folder cannot be written.
    """
    lock = paths.folder / "lock"
    paths.folder.mkdir(parents=True, exist_ok=True)
    with hold_lock(lock, f"{paths.output}: another build is running"):
        if not lock.exists():
            raise KislError(f"{paths.output}: another build has just ended; call again")
        try:
            yield
        finally:
            if not paths.plan.exists():
                shutil.rmtree(paths.folder, ignore_errors=True)


@dataclass(frozen=True)
class Plan:
    """What decides the bytes of the result, and the pieces that each task reads: together all, in their order.

    `id` is a hash of everything else; stamps name it.
    """

    triples: str
    triples_sha256: str
    rules: MatchRules
    tokenizer: str
    tokenizer_sha256: str
    vocab_size: int
    versions: Mapping[str, str]
    shares: Sequence[Sequence[Piece]]
    id: str = ""

    @property
    def tasks(self) -> int:
        """The number of shards."""
        return len(self.shares)

    @property
    def filters(self) -> bool:
        """Whether documents are removed at all."""
        return self.triples != NO_TRIPLES

    @property
    def files(self) -> dict[str, str]:
        """The version of each input file, in their order."""
        return {piece.file: piece.version for share in self.shares for piece in share}


def read_plan(paths: BuildPaths, ignore_damage: bool = False) -> Plan | None:
    """The plan of a build that was begun; None where there is none, or where `ignore_damage` and it cannot be read.

    Raises:
        InputError: it cannot be read.
    """
    try:
        values = json.loads(paths.plan.read_text(encoding="utf-8"))
        rules = {**values["rules"], "stop_list": tuple(values["rules"]["stop_list"])}
        shares = [[Piece(**piece) for piece in share] for share in values["shares"]]
        return Plan(**{**values, "rules": MatchRules(**rules), "shares": shares})
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        if ignore_damage:
            return None
        raise InputError(
            f"{paths.plan}: cannot be read ({type(error).__name__}: {error}); --force starts the build again"
        ) from None


def load_plan(paths: BuildPaths) -> Plan:
    """The plan that a task works by; the file is read once in a process, since each task asks and names may be many.

    Raises:
        KislError: it is missing.
    """
    try:
        return _load_plan(paths.output, paths.plan.stat().st_mtime_ns)
    except FileNotFoundError:
        raise KislError(f"{paths.plan}: is missing; was the build started again, or its folder deleted?") from None


@lru_cache(maxsize=1)
def _load_plan(output: Path, version: int) -> Plan:
    plan = read_plan(BuildPaths(output))
    if plan is None:
        raise FileNotFoundError
    return plan


def write_plan(paths: BuildPaths, plan: Plan, triples_jsonl: str, tokenizer_json: str) -> Plan:
    """Begin a build, with the plan written last; the plan with its id."""
    for folder in (paths.shards, paths.bad(0).parent, paths.read_bytes(0).parent):
        folder.mkdir(parents=True, exist_ok=True)
    write_atomically(paths.triples, triples_jsonl)
    write_atomically(paths.tokenizer, tokenizer_json)
    values = asdict(plan)
    values["id"] = sha256(json.dumps(values))
    write_atomically(paths.plan, json.dumps(values, indent=1) + "\n")
    return load_plan(paths)


@dataclass(frozen=True)
class Stamp:
    """Of a finished shard: its plan's id, what it contains, and the size of each of its files.

    `tokens` includes the ends of documents; `empty` documents contain white space at most.
    """

    plan: str
    documents: int
    tokens: int
    empty: int
    sizes: Mapping[str, int] = field(default_factory=dict)

    def write(self, paths: BuildPaths, rank: int) -> None:
        """Mark a shard as finished."""
        stamp = {**asdict(self), "sizes": _sizes(paths, rank)}
        write_atomically(file_of(paths.shard(rank), ".json"), json.dumps(stamp) + "\n")

    @classmethod
    def read(cls, paths: BuildPaths, plan: Plan, rank: int) -> "Stamp | None":
        """The stamp of a shard of this plan whose files have the noted sizes; None where the shard must be made."""
        try:
            stamp = cls(**json.loads(file_of(paths.shard(rank), ".json").read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None
        return stamp if stamp.plan == plan.id and stamp.sizes == _sizes(paths, rank) else None


def _sizes(paths: BuildPaths, rank: int) -> dict[str, int]:
    shard = paths.shard(rank)
    files = (file_of(shard, ".bin"), file_of(shard, ".idx"), paths.removed(rank))
    return {path.name: path.stat().st_size for path in files if path.exists()}


@dataclass(frozen=True)
class Corpus:
    """What a build made, as OUTPUT.json holds it; the same whatever the number of tasks and workers.

    `tokens` includes the ends of documents. `left_out` documents state a triple, by `relations` (a document may state
    triples of several); `empty` ones are white space at most, `bad` ones could not be read. OUTPUT.triples.csv says why
    triples are `unsearchable`.
    """

    documents: int
    tokens: int
    left_out: int
    empty: int
    bad: int
    relations: dict[str, int]
    unsearchable: int
    vocab_size: int
    tokenizer: str
    tokenizer_sha256: str
    triples: str
    triples_sha256: str
    match: str
    min_length: int
    stop_list: list[str]
    versions: dict[str, str]
    inputs: list[str]

    @classmethod
    def read(cls, path: Path) -> "Corpus":
        """The corpus of a manifest."""
        return cls(**json.loads(path.read_text(encoding="utf-8")))


def merge_shards(paths: BuildPaths, weighted: bool, *_: object) -> None:
    """Make the result of all shards: one .bin/.idx, or (weighted) the shards and a YAML; table; manifest, last.

    As a step of datatrove it gets further arguments, which do not matter: there is only one task. Drafts lie in the
    build's folder, so that none is left behind by a kill.

    Raises:
        InputError: no document is left.
        KislError: a shard is damaged.
        OSError: the result cannot be written.
    """
    if paths.manifest.exists():
        return
    plan = load_plan(paths)
    stamps = {rank: stamp for rank in range(plan.tasks) if (stamp := Stamp.read(paths, plan, rank))}
    if damaged := sorted(set(range(plan.tasks)) - stamps.keys()):
        listed = ", ".join(map(str, damaged[:8]))
        raise KislError(f"{paths.shards}: {len(damaged)} shards ({listed} …) are damaged; call the same command again")
    left_out, by_triple, by_relation = 0, Counter[int](), Counter[str]()
    for path in map(paths.removed, stamps):
        with path.open("rb") if path.exists() else io.BytesIO() as documents:
            for document in documents:
                stated = json.loads(document)["triples"]
                left_out += 1
                by_triple.update({match["triple"] for match in stated})
                by_relation.update({match["relation_id"] for match in stated})
    bad = "".join(file.read_text(encoding="utf-8") for file in map(paths.bad, stamps) if file.exists())
    triples = read_triples(paths.triples) if plan.filters else []
    reasons = unsearchable(triples, plan.rules)
    corpus = Corpus(
        documents=sum(stamp.documents for stamp in stamps.values()),
        tokens=sum(stamp.tokens for stamp in stamps.values()),
        left_out=left_out,
        empty=sum(stamp.empty for stamp in stamps.values()),
        bad=bad.count("\n"),
        relations=dict(sorted(by_relation.items())),
        unsearchable=len(reasons),
        vocab_size=plan.vocab_size,
        tokenizer=plan.tokenizer,
        tokenizer_sha256=plan.tokenizer_sha256,
        triples=plan.triples,
        triples_sha256=plan.triples_sha256,
        **asdict(plan.rules),
        versions=dict(plan.versions),
        inputs=list(plan.files),
    )
    if not corpus.documents:
        raise InputError(
            f"{paths.output}: no document is left: {corpus.left_out:,} state a triple, {corpus.empty:,} are empty; a "
            ".txt file is one document, a .jsonl file has one a line"
        )
    if weighted:
        _link(paths, stamps)
    else:
        _concatenate(paths, plan, stamps)
    if bad:
        write_atomically(paths.folder / "bad.txt", bad).replace(file_of(paths.output, ".bad.txt"))
    if plan.filters:
        table = io.StringIO()
        rows = csv.writer(table, lineterminator="\n")
        rows.writerow(_TABLE_COLUMNS)
        for index, triple in enumerate(triples):
            labels = map(no_formula, (triple.subject, triple.relation_id, triple.object, triple.group))
            rows.writerow((index, *labels, by_triple[index], reasons.get(index, "")))
        write_atomically(paths.folder / "table", table.getvalue()).replace(file_of(paths.output, ".triples.csv"))
    manifest = json.dumps(asdict(corpus), indent=2, ensure_ascii=False) + "\n"
    write_atomically(paths.folder / "manifest", manifest).replace(paths.manifest)
    shutil.rmtree(paths.shards, ignore_errors=True)


def _concatenate(paths: BuildPaths, plan: Plan, stamps: Mapping[int, Stamp]) -> None:
    shards = [paths.shard(rank) for rank in stamps]
    data, index = paths.folder / "bin", paths.folder / "idx"
    with data.open("wb") as target:
        for shard in shards:
            with file_of(shard, ".bin").open("rb") as source:
                shutil.copyfileobj(source, target, _COPY_BYTES)
        target.flush()
        os.fsync(target.fileno())
    write_index(index, token_type(plan.vocab_size), [IndexedDataset(shard).sizes for shard in shards])
    # The index last: where it is, all its documents are.
    data.replace(file_of(paths.output, ".bin"))
    index.replace(file_of(paths.output, ".idx"))


def _link(paths: BuildPaths, stamps: Mapping[int, Stamp]) -> None:
    """The shards as they are, and the lines of a YAML that trains on them."""
    tokens = {rank: stamp.tokens for rank, stamp in stamps.items() if stamp.documents}
    if len(tokens) > LARGEST_BLEND + 1:
        raise KislError(
            f"{paths.output}: GPT-NeoX blends at most {LARGEST_BLEND} paths, not {len(tokens)}; omit --weighted"
        )
    prefixes = {rank: paths.output.with_name(f"{paths.output.name}_{rank:05d}") for rank in tokens}
    for rank, prefix in prefixes.items():
        for ending in (".bin", ".idx"):
            source, target = file_of(paths.shard(rank), ending), file_of(prefix, ending)
            target.unlink(missing_ok=True)
            try:
                os.link(source, target)
            except OSError:  # no links on this file system; a build that is killed now makes this shard again
                source.replace(target)
    *train, held_out = tokens if len(tokens) > 1 else [*tokens] * 2
    lines = {
        "train_data_paths": [str(prefixes[rank]) for rank in train],
        "train_data_weights": [tokens[rank] for rank in train],
        "valid_data_paths": [str(prefixes[held_out])],
        "test_data_paths": [str(prefixes[held_out])],
    }
    text = _WEIGHTED_HEADER + yaml.safe_dump(lines, sort_keys=False)
    write_atomically(paths.folder / "yml", text).replace(file_of(paths.output, ".yml"))
