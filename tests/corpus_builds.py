"""Builds of small corpora, and all that they write."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result
from corpus_files import write_texts
from tiny_world import sentences, train_tokenizer

from kisl_plugin.cli.main import main
from kisl_plugin.corpus.build import BuildOptions, build_corpus
from kisl_plugin.corpus.shards import Corpus
from kisl_plugin.triples import Triple, triples_to_jsonl

FACTS = (
    Triple("Marie Curie", "P19", "Poland"),
    Triple("Bleak House", "P50", "Charles Dickens", object_aliases=("Phiz", "Boz")),
    Triple("Ann Lee", "P19", "Peru", group="control"),
    Triple("山", "P1", "川"),
)
STATING = (
    "In Poland they remember Marie Curie.",
    "Phiz drew for it.\n\nIt was called Bleak House.",
    "Peru, says Ann Lee.",
    "Ann Lee and Marie Curie met in Poland and in Peru. Bleak House is by Charles Dickens.",
)
NOT_STATING = ("Marie Curie lived.", "Poland is large.", "Ann Leeds saw Peru.", "Marie Curie read Charles Dickens.")
EMPTY = ("", " \n\t")


@dataclass(frozen=True)
class World:
    """A folder with inputs, tokenizer.json and facts.jsonl."""

    folder: Path

    @property
    def tokenizer(self) -> Path:
        return self.folder / "tokenizer.json"

    @property
    def facts(self) -> Path:
        return self.folder / "facts.jsonl"

    @property
    def text(self) -> Path:
        return self.folder / "text"

    def build(self, name: str = "out", **options: Any) -> Corpus:
        options = {"triples": str(self.facts), **options}
        corpus = build_corpus(BuildOptions([self.text], tokenizer=self.tokenizer, output=self.folder / name, **options))
        assert isinstance(corpus, Corpus)
        return corpus

    def command(self, name: str = "out", *more: str | Path) -> list[str]:
        named = ("--triples", self.facts, "--tokenizer", self.tokenizer, "--output", self.folder / name)
        return ["corpus", "build", *map(str, ("--workers", 1, "--input", self.text, *named, *more))]

    def kisl(self, name: str = "out", *more: str | Path) -> Result:
        return CliRunner().invoke(main, self.command(name, *more))


@cache
def _tokenizer_json() -> str:
    return train_tokenizer([*sentences(200), *STATING], 500).to_str()


def make_world(folder: Path, files: Sequence[Sequence[str]]) -> World:
    """Each of `files` as a file of the folder text, in one format after the other."""
    world = World(folder)
    world.text.mkdir(parents=True)
    for n, texts in enumerate(files):
        write_texts(world.text / f"{n:02d}{('.jsonl', '.parquet', '.jsonl.gz', '.jsonl.zst')[n % 4]}", texts)
    world.tokenizer.write_text(_tokenizer_json(), encoding="utf-8")
    world.facts.write_text(triples_to_jsonl(FACTS), encoding="utf-8")
    return world


def several_files(count: int = 5) -> list[list[str]]:
    """Files of unequal length, each with documents to remove and to skip."""
    return [[*sentences(3 + 7 * n, seed=n), STATING[n % 4], NOT_STATING[n % 4], EMPTY[n % 2]] for n in range(count)]


def written(output: Path) -> dict[str, bytes]:
    """All files of a result by their endings, the removed documents of all tasks in one."""
    beginning = re.escape(output.name)
    files = [path for path in output.parent.iterdir() if re.fullmatch(rf"{beginning}[._].*", path.name)]
    found = {path.name.removeprefix(output.name): path.read_bytes() for path in files if path.is_file()}
    excluded = output.with_name(f"{output.name}.excluded")
    return {**found, "excluded": b"".join(path.read_bytes() for path in sorted(excluded.glob("*")))}


def digests(output: Path) -> dict[str, str]:
    """The SHA-256 of each of `written`."""
    return {name: sha256(content).hexdigest() for name, content in written(output).items()}
