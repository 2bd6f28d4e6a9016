"""A document, and what every format checks of one."""

from typing import Any, NamedTuple

from kisl_plugin.errors import InputError

KEY = "text"
ID = "id"
LARGEST = 64 << 20


class TextDocument(NamedTuple):
    """A text of `size` bytes in UTF-8; `id` is its row's own, else "path:line" or "path#row".

    `row` is how many bytes of its piece it stands for: a line's, other keys included.
    """

    text: str
    id: str
    size: int
    row: int


def document_of(text: Any, given: Any, where: str, default: str, row: int | None = None) -> TextDocument:
    """The document of a row of `row` bytes (default: the text's); an id that is no string or number is passed over.

    Raises:
        InputError: the text is no string, cannot be written as UTF-8, or is above 64 MiB.
    """
    if not isinstance(text, str):
        raise InputError(f"{where}: {KEY} is {repr(text)[:40]}; expected a string")
    size = len(text) if text.isascii() else _encoded_size(text, where)
    if size > LARGEST:
        raise too_large(where, "a row is one document")
    return TextDocument(text, _id(given, default), size, size if row is None else row)


def too_large(where: str, why: str) -> InputError:
    """The error for a document that memory should not hold."""
    return InputError(
        f'{where}: above {LARGEST >> 20} MiB, and {why}; cut it into documents: .jsonl, one {{"{KEY}": …}} a line'
    )


def not_utf8(where: str, error: UnicodeDecodeError) -> InputError:
    """The error for bytes that are no text."""
    return InputError(f"{where}: byte 0x{error.object[error.start]:02x} is not UTF-8; save the file as UTF-8")


def _id(given: Any, default: str) -> str:
    if isinstance(given, bool) or not isinstance(given, (str, int, float)):
        return default
    # Half a character could not be written to any file.
    return str(given).encode("utf-8", "replace").decode()


def _encoded_size(text: str, where: str) -> int:
    try:
        return len(text.encode("utf-8"))
    except UnicodeEncodeError as error:
        half = f"\\u{ord(text[error.start]):04x}"
        raise InputError(f"{where}: {KEY} holds {half}, half of a character, which UTF-8 cannot hold") from None
