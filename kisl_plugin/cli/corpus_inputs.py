"""The options of `kisl corpus` that say which text is read."""

from collections.abc import Callable
from typing import Any

import click

FORMATS = """\b
A document is
  a .txt file, whole;
  the key "text" of a line of .jsonl,
    .jsonl.gz or .jsonl.zst;
  the column "text" of a row of .parquet.

Its id is the key or column "id", else file and line. Folders are searched through for such files, on this machine
and behind URLs. hf:// reads the Hugging Face hub, s3:// needs the extra s3 and AWS's usual variables
(AWS_PROFILE, AWS_ENDPOINT_URL); other URLs are opened by fsspec."""

_input = click.option(
    "--input",
    "inputs",
    multiple=True,
    required=True,
    metavar="FILE...",
    help="Text files, folders, globs; hf://datasets/OWNER/NAME/…, s3://BUCKET/…",
)
# What a shell makes of --input data/*.txt: the first file is the option's, the others stand free.
_more = click.argument("more", nargs=-1, metavar="")


def takes_text(command: Callable[..., Any]) -> Callable[..., Any]:
    """Gives a command the parameters `inputs` and `more`, strings that together are what find_files takes."""
    return _input(_more(command))
