"""GPT-NeoX's `.bin/.idx` format (Megatron's memory-mapped indexed dataset), byte for byte."""

import hashlib
import os
import struct
from array import array
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kisl_plugin.errors import InputError
from kisl_plugin.hookspecs import IntArray

__all__ = ["IndexedDataset", "IndexedWriter", "file_of", "token_type", "write_index"]

_HEADER = struct.Struct("<9sQBQQ")  # magic, version, code of the token type, documents, documents + 1
_MAGIC, _VERSION = b"MMIDIDX\x00\x00", 1
# A token type's code in the header is its place here, from 1.
_TYPES: tuple[Any, ...] = (np.uint8, np.int8, np.int16, np.int32, np.int64, np.float32, np.float64, np.uint16)
_FINGERPRINT_PIECE, _FINGERPRINT_PIECES = 1 << 16, 1024  # bytes, and how many of them
_INDEX_PIECE = _BUFFER = 1 << 20


def file_of(prefix: Path, ending: str) -> Path:
    """`prefix` with `.bin` or `.idx` appended; a dot within the prefix stays."""
    return prefix.with_name(prefix.name + ending)


class IndexedDataset:
    """Documents of token ids, memory-mapped. `sizes`: tokens of each document, int32 [documents].

    Raises:
        InputError: a file is missing, is not of this format, or is cut short.
    """

    def __init__(self, prefix: Path) -> None:
        index, data = file_of(prefix, ".idx"), file_of(prefix, ".bin")
        for path in (index, data):
            if not path.is_file():
                raise InputError(f"{path}: no such file; data_path is the common beginning of a .bin and an .idx file")
        with index.open("rb") as stream:
            head = stream.read(_HEADER.size)
        if len(head) < _HEADER.size or not head.startswith(_MAGIC):
            raise InputError(f"{index}: not an index of GPT-NeoX's mmap format (it begins with {head[:9]!r})")
        _, version, code, count, documents = _HEADER.unpack(head)
        if version != _VERSION or not 1 <= code <= len(_TYPES):
            raise InputError(f"{index}: version {version}, token type {code}; expected version 1 and a type of 1 to 8")
        raw = np.memmap(index, mode="r", offset=_HEADER.size).view(np.ndarray)
        need = count * 12 + documents * 8
        if len(raw) != need:
            raise InputError(f"{index}: {len(raw)} bytes after the header; {count} documents need {need}")
        self.sizes: NDArray[np.int32] = raw[: count * 4].view(np.int32)
        self._pointers = raw[count * 4 : count * 12].view(np.int64)
        self.dtype = np.dtype(_TYPES[code - 1])
        size = data.stat().st_size
        if size % self.dtype.itemsize:
            raise InputError(f"{data}: {size} bytes are not a whole number of {self.dtype} tokens; it is cut short")
        # A plain array: slicing the memmap subclass costs microseconds a document.
        self._tokens = np.memmap(data, mode="r", dtype=self.dtype).view(np.ndarray) if size else np.zeros(0, self.dtype)
        total = int(self.sizes.sum(dtype=np.int64))
        if total != len(self._tokens):
            raise InputError(f"{data}: {len(self._tokens)} tokens; expected {total}, the number in {index.name}")

    def __len__(self) -> int:
        return len(self.sizes)

    def get(self, document: int, offset: int = 0, length: int | None = None) -> NDArray[Any]:
        """Tokens offset … offset+length-1 of a document (to its end without `length`)."""
        begin = int(self._pointers[document]) // self.dtype.itemsize + offset
        size = int(self.sizes[document]) - offset if length is None else length
        return self._tokens[begin : begin + size]

    def fingerprint(self) -> str:
        """A SHA-256 of the documents' sizes and of the tokens: all up to 64 MiB, else 1,024 pieces spread over them."""
        digest = hashlib.sha256(self.sizes.tobytes())
        piece = _FINGERPRINT_PIECE // self.dtype.itemsize
        whole = len(self._tokens) <= _FINGERPRINT_PIECES * piece
        last = len(self._tokens) - piece
        starts = np.arange(0, len(self._tokens), piece) if whole else np.linspace(0, last, _FINGERPRINT_PIECES)
        for start in starts.astype(np.int64).tolist():
            digest.update(self._tokens[start : start + piece].tobytes())
        return digest.hexdigest()


class IndexedWriter:
    """Writes documents to `prefix`.bin and, when closed, `prefix`.idx. Tokens are of `token_type(vocab_size)`.

    Used in a with statement: after an error there is no index, so half a corpus cannot be read.
    """

    def __init__(self, prefix: Path, vocab_size: int) -> None:
        self._prefix = prefix
        self._dtype = token_type(vocab_size)
        self._sizes = array("i")
        prefix.parent.mkdir(parents=True, exist_ok=True)
        # New files, not the old ones emptied: a process that still runs may have those open.
        for ending in (".idx", ".bin"):
            file_of(prefix, ending).unlink(missing_ok=True)
        self._stream = file_of(prefix, ".bin").open("wb", _BUFFER)

    def __enter__(self) -> "IndexedWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stream.close()
        if kind is None:
            draft = file_of(self._prefix, ".idx.part")
            write_index(draft, self._dtype, [np.frombuffer(self._sizes, dtype=np.int32)])
            draft.replace(file_of(self._prefix, ".idx"))

    def add(self, tokens: Any) -> None:
        """Append a document (int array [n], its end-of-document token included)."""
        self._stream.write(np.asarray(tokens, dtype=self._dtype).tobytes())
        self._sizes.append(len(tokens))

    def extend(self, tokens: Any, ends: IntArray, eod: int) -> None:
        """Append several documents, each followed by `eod`: their tokens (int array [n]), and where each one's end."""
        data = np.ascontiguousarray(tokens, dtype=self._dtype).view(np.uint8).data
        end_of_document = np.array(eod, dtype=self._dtype).tobytes()
        for start, end in pairwise([0, *(ends * self._dtype.itemsize).tolist()]):
            self._stream.write(data[start:end])
            self._stream.write(end_of_document)
        self._sizes.extend(np.diff(ends, prepend=0) + 1)


def token_type(vocab_size: int) -> np.dtype[Any]:
    """The type that holds a token: uint16 below 65,500 ids, else int32, as GPT-NeoX chooses it."""
    return np.dtype(np.uint16 if vocab_size < 65_500 else np.int32)


def write_index(path: Path, dtype: np.dtype[Any], sizes: Sequence[NDArray[np.int32]]) -> None:
    """Write a whole .idx: `sizes` are the tokens of each document (int32 [n]), in parts that follow one another.

    Memory is bounded, so the parts may be mapped from large files.
    """
    count = sum(map(len, sizes))
    pieces = [part[at : at + _INDEX_PIECE] for part in sizes for at in range(0, len(part), _INDEX_PIECE)]
    code = 1 + _TYPES.index(dtype.type)
    with path.open("wb") as stream:
        stream.write(_HEADER.pack(_MAGIC, _VERSION, code, count, count + 1))
        for piece in pieces:
            stream.write(piece.tobytes())
        pointer = 0
        for piece in pieces:
            ends = pointer + np.cumsum(piece, dtype=np.int64) * dtype.itemsize
            stream.write(np.concatenate(([pointer], ends[:-1])).astype(np.int64).tobytes())
            pointer = int(ends[-1])
        for at in range(0, count + 1, _INDEX_PIECE):
            stream.write(np.arange(at, min(at + _INDEX_PIECE, count + 1), dtype=np.int64).tobytes())
        stream.flush()
        os.fsync(stream.fileno())
