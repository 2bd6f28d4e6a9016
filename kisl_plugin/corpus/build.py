"""Background text → GPT-NeoX's .bin/.idx, without the documents that state a fact under test.

A build is planned once; the same call after a kill goes on with that plan, and one that would give other bytes is
refused. Datatrove is loaded when a build runs.
"""

import re
import sys
import time
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from kisl_plugin import __version__
from kisl_plugin.corpus.inputs import MEGABYTE, URL, Piece, cut_into_pieces, find_files
from kisl_plugin.corpus.shards import (
    LARGEST_BLEND,
    NO_TRIPLES,
    BuildPaths,
    Corpus,
    Plan,
    Stamp,
    claim,
    not_written,
    read_plan,
    write_plan,
)
from kisl_plugin.errors import InputError, KislError, needs_extra
from kisl_plugin.files import sha256
from kisl_plugin.huggingface import read_tokenizer
from kisl_plugin.indexed import file_of
from kisl_plugin.matching import MatchRules, matcher_of
from kisl_plugin.progress import Progress
from kisl_plugin.triples import read_triples, triples_to_jsonl

if TYPE_CHECKING:
    from kisl_plugin.corpus.executors import Runner, Stage

__all__ = ["BuildOptions", "Finished", "Submitted", "build_corpus", "run_build"]

_MOST_TASKS = 1000
RESULTS = (".json", ".idx", ".bin", ".yml", ".triples.csv", ".bin.part", ".idx.part")


class InterruptedBuildError(KislError):
    """Ctrl-C; finished shards are kept."""

    exit_status = 130


@dataclass(frozen=True)
class BuildOptions:
    """What a build reads and writes, and how it is divided.

    `triples` is a source of `read_triples`, or "none" to keep every document. `tasks` None: one for each piece, at most
    1,000. `workers` tasks share `cores`; the tokenizer uses the cores that they leave. `weighted`: the shards are not
    merged but listed in a YAML. `force`: an earlier result, or a build that was begun, is replaced.
    """

    inputs: Sequence[str | Path]
    triples: str
    tokenizer: Path
    output: Path
    rules: MatchRules = field(default_factory=MatchRules)
    tasks: int | None = None
    workers: int = 1
    cores: int = 1
    weighted: bool = False
    force: bool = False

    def tasks_for(self, pieces: int) -> int:
        """The number of tasks that so many pieces are divided into."""
        most = LARGEST_BLEND + 1 if self.weighted else _MOST_TASKS  # of a weighted corpus one shard is held out
        return min(self.tasks or most, most, pieces)


@dataclass(frozen=True)
class Submitted:
    """A build that a cluster works on: its status in lines, and whether this call submitted jobs."""

    lines: list[str]
    now: bool


@dataclass(frozen=True)
class Finished:
    """A build that is done; this call read `size` bytes of text in `seconds`."""

    corpus: Corpus
    size: int
    seconds: float


def build_corpus(
    inputs: Sequence[str | Path],
    triples: str,
    tokenizer: Path,
    output: Path,
    *,
    rules: MatchRules | None = None,
    tasks: int | None = None,
    workers: int = 1,
    weighted: bool = False,
    force: bool = False,
) -> Corpus:
    """Build on this machine, `workers` tasks at a time; see `BuildOptions` and `run_build`.

    With several workers a script needs `if __name__ == "__main__":`, as with Python's own multiprocessing.
    """
    with needs_extra("corpus", "building a corpus"):
        from kisl_plugin.corpus.executors import LocalRunner
    options = BuildOptions(
        inputs, triples, tokenizer, output, rules or MatchRules(), tasks, workers, weighted=weighted, force=force
    )
    result = run_build(options, LocalRunner(workers))
    if isinstance(result, Submitted):
        raise KislError(f"{output}: {'; '.join(result.lines)}; wait for these jobs of an earlier call")
    return result.corpus


def run_build(options: BuildOptions, runner: "Runner") -> Finished | Submitted:
    """Write OUTPUT.bin and .idx (weighted: shards and a .yml), the removed documents, a table, and OUTPUT.json last.

    The same inputs, triples, rules and tokenizer give the same bytes, whatever the tasks and workers. The same call
    after a kill makes only the shards that are not finished. There is no .idx before its documents.

    Raises:
        InputError: an input is bad, no document is left, `output` exists already, or what was begun there is another
            build; without `force`. Or datatrove is not installed.
        KislError: another build is running there, a task failed, or something cannot be written.
    """
    with needs_extra("corpus", "building a corpus"):
        from kisl_plugin.corpus.executors import read_slurm_status
    output, paths = options.output, _checked_paths(options)
    began = time.monotonic()
    with claim(paths):
        try:
            old = read_plan(paths, ignore_damage=options.force)
            jobs, lines = read_slurm_status(_stages(options, paths, old) if old else [])
            if jobs and options.force:
                raise InputError(f"{output}: {'; '.join(lines)}; cancel these jobs before --force")
            plan = _plan(options, paths, old)
            progress = _BuildProgress(paths, plan)
            if jobs:
                return Submitted(lines, now=False)
            size = 0
            if not paths.manifest.exists():
                shards, merge = stages = _stages(options, paths, plan)
                merge.forget(0)
                # Tasks whose shard is not finished, or is damaged, run again.
                for rank, share in enumerate(plan.shares):
                    if Stamp.read(paths, plan, rank) is None:
                        file_of(paths.shard(rank), ".json").unlink(missing_ok=True)
                        paths.read_bytes(rank).unlink(missing_ok=True)
                        shards.forget(rank)
                        size += sum(piece.size for piece in share)
                try:
                    complete = runner.run(stages, progress)
                finally:
                    progress.close()
                if not complete:
                    failed = [f"before: {line}" for line in lines if " failed: " in line]
                    return Submitted([*failed, *read_slurm_status(stages)[1]], now=True)
            corpus = Corpus.read(paths.manifest)
            paths.plan.unlink()  # without a plan the folder is removed
            return Finished(corpus, size, time.monotonic() - began)
        except OSError as error:
            raise not_written(str(output), error) from error
        except KeyboardInterrupt:
            begun = read_plan(paths)
            done = sum(Stamp.read(paths, begun, rank) is not None for rank in range(begun.tasks)) if begun else 0
            tasks = f" with {done} of {begun.tasks} tasks done" if begun else ""
            raise InterruptedBuildError(
                f"{output}: interrupted{tasks}; the same command without --force goes on from here"
            ) from None


def _checked_paths(options: BuildOptions) -> BuildPaths:
    """Refuse an output that names no local file, or whose files exist without a build that was begun."""
    output = options.output
    if URL.match(str(output)):
        raise InputError(f"{output}: is a URL; results are written to this machine: give a path, then copy them")
    if output.name in ("", ".."):
        raise InputError(f"--output {output}: is a folder; expected the beginning of file names: {output}/corpus")
    if output.suffix in (".bin", ".idx"):
        raise InputError(f"--output {output}: {output.suffix} is appended; expected {output.with_suffix('')}")
    paths = BuildPaths(output.absolute())
    existing = next(_results(paths), None)
    if existing and not options.force and not paths.plan.exists():
        if paths.folder.exists():  # of a build that was killed when it had only its folder left to remove
            with claim(paths):
                pass
        raise InputError(f"{existing}: already exists; choose another --output, or --force to replace it")
    return paths


def _results(paths: BuildPaths) -> Iterator[Path]:
    """The files there that a build writes, and that a new one replaces; the manifest first."""
    yield from (path for ending in RESULTS if (path := file_of(paths.output, ending)).exists())
    shard = re.compile(re.escape(paths.output.name) + r"_\d{5}\.(bin|idx)")
    if paths.output.parent.is_dir():
        yield from sorted(path for path in paths.output.parent.iterdir() if shard.fullmatch(path.name))
    yield from sorted(paths.excluded.glob("[0-9]*[0-9].jsonl"))


def _plan(options: BuildOptions, paths: BuildPaths, old: Plan | None) -> Plan:
    """The plan to work by: `old`, if it gives the same bytes, else a new one in its place.

    Raises:
        InputError: an input is bad; or another build was begun, and finished shards would be lost.
    """
    tokenizer, _ = read_tokenizer(options.tokenizer)
    triples = [] if options.triples == NO_TRIPLES else read_triples(options.triples)
    matcher_of([], options.rules)  # an unknown matcher is refused before any work
    tokenizer_json, triples_jsonl = tokenizer.to_str(), triples_to_jsonl(triples)
    files = find_files(options.inputs)

    def plan_of(shares: Sequence[Sequence[Piece]]) -> Plan:
        return Plan(
            triples=options.triples,
            triples_sha256=sha256(triples_jsonl),
            rules=options.rules,
            tokenizer=str(options.tokenizer),
            tokenizer_sha256=sha256(tokenizer_json),
            vocab_size=max(tokenizer.get_vocab().values()) + 1,
            # The releases that decide which documents are removed, and which tokens the others become.
            versions={
                "kisl-plugin": __version__,
                "tokenizers": version("tokenizers"),
                "Unicode": unicodedata.unidata_version,
            },
            shares=shares,
        )

    if old and not options.force:
        changed = _difference(old, plan_of([files]))
        pieces = sum(map(len, old.shares))
        if changed is None and options.tasks and options.tasks_for(pieces) != old.tasks:
            changed = ("--tasks", old.tasks, options.tasks)
        if changed is None:
            return old
        stamps = (Stamp.read(paths, old, rank) for rank in range(old.tasks))
        if paths.manifest.exists() or any(stamp.documents for stamp in stamps if stamp):
            what, before, now = changed
            raise InputError(
                f"{file_of(options.output, '.work')}: a build was begun there with {what} {before}, now it is {now}; "
                "go on with the old value, or add --force to start again"
            )
    pieces_now = cut_into_pieces(files)
    for path in list(_results(paths)):
        path.unlink()
    paths.clear()
    shares = share_out(pieces_now, options.tasks_for(len(pieces_now)))
    return write_plan(paths, plan_of(shares), triples_jsonl, tokenizer_json)


def share_out(pieces: Sequence[Piece], tasks: int) -> list[list[Piece]]:
    """Consecutive runs of pieces of about the same size, one a task, none empty."""
    shares, start, left = list[list[Piece]](), 0, sum(piece.size for piece in pieces)
    for remaining in range(tasks, 1, -1):
        stop, size = start + 1, pieces[start].size
        # Take the next piece if that brings the share nearer to an equal part of what is left.
        while len(pieces) - stop >= remaining and size + pieces[stop].size / 2 <= left / remaining:
            size += pieces[stop].size
            stop += 1
        shares.append(list(pieces[start:stop]))
        start, left = stop, left - size
    return [*shares, list(pieces[start:])]


def _difference(old: Plan, new: Plan) -> tuple[str, object, object] | None:
    """What decides the bytes and is not the same, with both values; None if nothing is."""
    pairs: list[tuple[str, object, object]] = [
        (f"{name} version", old.versions.get(name), new.versions.get(name)) for name in new.versions
    ]
    for (before, old_version), (now, new_version) in zip(old.files.items(), new.files.items(), strict=False):
        pairs += [("--input", before, now), (f"the version of {before}", old_version, new_version)]
    pairs += [
        ("--input", f"{len(old.files)} files", f"{len(new.files)} files"),
        ("--triples", f"{old.triples} ({old.triples_sha256[:12]})", f"{new.triples} ({new.triples_sha256[:12]})"),
        ("--tokenizer", old.tokenizer_sha256[:12], new.tokenizer_sha256[:12]),
        *((f"--{key.replace('_', '-')}", value, asdict(new.rules)[key]) for key, value in asdict(old.rules).items()),
    ]
    return next((pair for pair in pairs if pair[1] != pair[2]), None)


def _stages(options: BuildOptions, paths: BuildPaths, plan: Plan) -> "list[Stage]":
    """The stage that makes shards, and the one that makes the result of them."""
    from kisl_plugin.corpus.executors import Stage
    from kisl_plugin.corpus.filter import ExclusionWriter, FactFilter, MergeShards, ReadPieces, TokenizeShard

    threads = max(1, options.cores // min(options.workers, plan.tasks))
    pipeline = [ReadPieces(paths), TokenizeShard(paths, threads)]
    if plan.filters:
        pipeline.insert(1, FactFilter(paths.triples, plan.rules, ExclusionWriter(paths.excluded), paths.shards))
    return [
        Stage("shards", pipeline, plan.tasks, paths.folder / "stage_shards"),
        Stage("merge", [MergeShards(paths, options.weighted)], 1, paths.folder / "stage_merge"),
    ]


class _BuildProgress:
    """Shows the sum of the bytes that the tasks have noted as read, and how many tasks are done."""

    def __init__(self, paths: BuildPaths, plan: Plan) -> None:
        self._paths, self._tasks, self._finished = paths, plan.tasks, 0
        megabytes = sum(piece.size for share in plan.shares for piece in share) // MEGABYTE
        # During a run sys.stderr leads nowhere.
        self._progress = Progress("building the corpus, MB", max(1, megabytes), stream=sys.stderr)

    def __call__(self) -> None:
        """Show how far it is. The last update is always written, and there must be only one."""
        if self._finished == self._tasks:
            return
        # The merge removes the stamps, and writes the manifest before.
        merged = self._paths.manifest.exists()
        self._finished = self._tasks if merged else len(list(self._paths.shards.glob("*[0-9].json")))
        notes = [note.read_text(encoding="utf-8") for note in self._paths.read_bytes(0).parent.iterdir()]
        read = min(sum(int(note or 0) for note in notes) // MEGABYTE, self._progress.total - 1)
        done = self._progress.total if self._finished == self._tasks else read
        self._progress.update(done, f"{self._finished:,} of {self._tasks:,} tasks done")

    def close(self) -> None:
        """End the line."""
        self._progress.close()
