"""Documents → GPT-NeoX's .bin/.idx, without those that state a fact under test."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kisl_plugin.corpus.files import find_files
from kisl_plugin.corpus.pieces import cut_into_pieces, read_documents
from kisl_plugin.errors import InputError, KislError
from kisl_plugin.indexed import IndexedWriter, file_of
from kisl_plugin.matching import matcher_of
from kisl_plugin.runcard import sha256, write_atomically
from kisl_plugin.tokenizer import read_tokenizer
from kisl_plugin.triples import Triple, read_triples, triples_to_jsonl

if TYPE_CHECKING:
    from tokenizers import Tokenizer

NO_TRIPLES = "none"
BATCH_DOCUMENTS, BATCH_CHARACTERS = 1000, 4_000_000


@dataclass(frozen=True)
class Corpus:
    """What a build made, as OUTPUT.json holds it.

    `tokens` counts the end-of-document tokens too. `left_out` documents state a triple, by `relations` (a document may
    state triples of several); `empty` ones hold nothing but white space.
    """

    documents: int
    tokens: int
    left_out: int
    empty: int
    relations: dict[str, int]
    vocab_size: int
    tokenizer: str
    tokenizer_sha256: str
    triples: str
    triples_sha256: str
    inputs: list[str]


def build_corpus(inputs: Sequence[Path], triples: str, tokenizer: Path, output: Path, *, force: bool = False) -> Corpus:
    """Write `output`.bin and .idx, and what was done to `output`.json, the last.

    Until all documents are written there is no .idx, so a build that was killed leaves nothing that can be trained on.
    `triples` is a source of `read_triples`, or "none" to keep every document. Memory is bounded by a batch.

    Raises:
        InputError: an input is bad, no document is left, or `output` is there already and `force` is not given.
        KislError: `output` cannot be written.
    """
    encoder, eod = read_tokenizer(tokenizer)
    facts = [] if triples == NO_TRIPLES else read_triples(triples)
    files = find_files(inputs)
    if file_of(output, ".idx").exists() and not force:
        raise InputError(f"{file_of(output, '.idx')}: is there already; choose another --output, or --force to replace")
    vocab_size = max(encoder.get_vocab().values()) + 1
    sieve = _Sieve(facts)
    try:
        file_of(output, ".json").unlink(missing_ok=True)
        with IndexedWriter(output, vocab_size) as writer:
            kept = sieve.kept(one.text for one in read_documents(cut_into_pieces(files), "building the corpus"))
            tokens = sum(write_documents(batch, encoder, eod, writer) for batch in _batches(kept))
            _check_that_some_are_left(sieve, output)
        made = Corpus(
            sieve.documents, tokens, sieve.left_out, sieve.empty, dict(sorted(sieve.relations.items())), vocab_size,
            str(tokenizer), sha256(encoder.to_str()), triples, sha256(triples_to_jsonl(facts)),
            [file.path for file in files],
        )  # fmt: skip
        write_atomically(file_of(output, ".json"), json.dumps(asdict(made), indent=2, ensure_ascii=False) + "\n")
    except OSError as error:
        raise KislError(f"{output}: cannot be written ({error.strerror or error})") from None
    return made


def write_documents(texts: Sequence[str], tokenizer: "Tokenizer", eod: int, writer: IndexedWriter) -> int:
    """Append the texts, encoded without special tokens, each with its end of document; the number of tokens."""
    tokens = 0
    for encoding in tokenizer.encode_batch(texts, add_special_tokens=False):
        ids = [*encoding.ids, eod]
        writer.add(ids)
        tokens += len(ids)
    return tokens


class _Sieve:
    """Lets documents through and counts those that it holds back."""

    def __init__(self, triples: Sequence[Triple]) -> None:
        self._triples = triples
        self._stated = matcher_of(triples)
        self.documents = self.left_out = self.empty = 0
        self.relations: Counter[str] = Counter()

    def kept(self, texts: Iterable[str]) -> Iterator[str]:
        """The texts that are not empty and state none of the triples."""
        for text in texts:
            if not text.strip():
                self.empty += 1
            elif stated := self._stated([text])[0]:
                self.left_out += 1
                self.relations.update({self._triples[index].relation_id for index in {match.triple for match in stated}})
            else:
                self.documents += 1
                yield text


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    held = 0
    for text in texts:
        batch.append(text)
        held += len(text)
        if len(batch) == BATCH_DOCUMENTS or held >= BATCH_CHARACTERS:
            yield batch
            batch, held = [], 0
    if batch:
        yield batch


def _check_that_some_are_left(sieve: _Sieve, output: Path) -> None:
    if not sieve.documents:
        raise InputError(
            f"{output}: no document is left: {sieve.left_out:,} state a triple, {sieve.empty:,} are empty; a .txt file "
            "is one document, a .jsonl file has one a line"
        )
