"""The tokenizer that data, training and export share: a tokenizer.json with GPT-NeoX's end of document."""

from pathlib import Path
from typing import TYPE_CHECKING

from kisl_plugin.errors import InputError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

EOD_TOKEN = "<|endoftext|>"
PADDING = "<|padding|>"


def read_tokenizer(path: Path) -> "tuple[Tokenizer, int]":
    """The tokenizer of a file, which neither cuts a text nor fills it up, and the id of its end of document.

    Raises:
        InputError: the file is missing, is no tokenizer.json, or has no `<|endoftext|>`.
    """
    if not path.is_file():
        raise InputError(
            f"{path}: no such file; expected a tokenizer.json: kisl corpus tokenizer --input FILE --output {path}"
        )
    try:
        from tokenizers import Tokenizer
    except ImportError:
        raise missing_library(path) from None
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises bare Exception
        raise InputError(f"{path}: not a tokenizer.json of the tokenizers library ({error})") from None
    # A file may ask for either; a text would be cut or filled up, and nobody would know.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    eod = tokenizer.token_to_id(EOD_TOKEN)
    if eod is None:
        raise InputError(f"{path}: the tokenizer has no {EOD_TOKEN}; GPT-NeoX looks that token up as end of document")
    return tokenizer, eod


def missing_library(path: Path) -> InputError:
    """The error where the tokenizers library is not installed."""
    return InputError(f"{path}: the tokenizers library is missing; pip install 'kisl-plugin[corpus]'")
