"""`kisl corpus`: a tokenizer, and the background text in GPT-NeoX's format."""

from pathlib import Path

import click

from kisl_plugin.cli.corpus_audit import audit
from kisl_plugin.cli.corpus_build import build
from kisl_plugin.cli.corpus_inputs import FORMATS, takes_text
from kisl_plugin.cli.errors import Command
from kisl_plugin.errors import InputError

PADDED_TO = 128  # make_vocab_size_divisible_by, GPT-NeoX's default
SAMPLE = 4000
MEGABYTE = 1_000_000


@click.group()
def corpus() -> None:
    """Make a tokenizer and the background text to train on, without the facts under test; count what stands in it.

    Example: kisl corpus build --help
    """


@corpus.command(cls=Command, epilog=FORMATS)
@takes_text
@click.option("--output", required=True, type=click.Path(path_type=Path), help="The file, such as data/tokenizer.json.")
@click.option("--vocab-size", default=32_000, show_default=True, type=click.IntRange(min=1), help="Tokens in all.")
@click.option(
    "--sample",
    default=SAMPLE,
    show_default=True,
    metavar="MB",
    type=click.IntRange(min=1),
    help="Of larger inputs train on so many megabytes of text, taken evenly from all of them.",
)
@click.option("--force", is_flag=True, help="Replace an output that is there already.")
def tokenizer(
    inputs: tuple[str, ...], more: tuple[str, ...], output: Path, vocab_size: int, sample: int, force: bool
) -> None:
    """Train a byte-level BPE tokenizer, for HFTokenizer's vocab_file.

    <|endoftext|> and <|padding|> are among its tokens. The same text gives the same bytes.

    Example: kisl corpus tokenizer --input data/text.jsonl --output data/tokenizer.json

    Example: kisl corpus tokenizer --sample 2000 --output data/tokenizer.json
    --input hf://datasets/HuggingFaceFW/fineweb-edu/sample/10BT
    """
    from kisl_plugin.corpus.files import find_files
    from kisl_plugin.corpus.outputs import check_writable
    from kisl_plugin.corpus.pieces import cut_into_pieces, read_documents, total_size
    from kisl_plugin.corpus.vocabulary import train_tokenizer

    if output.exists() and not force:
        raise InputError(f"{output}: is there already; choose another --output, or --force to replace it")
    check_writable(output)
    pieces = cut_into_pieces(find_files([*inputs, *more]))
    texts = read_documents(pieces, "training the tokenizer", sample * MEGABYTE)
    reached = train_tokenizer((document.text for document in texts), vocab_size, output).get_vocab_size()
    click.echo(f"{output} · {reached:,} tokens")
    whole = total_size(pieces) // MEGABYTE
    if whole > sample:
        click.echo(f"trained on about {sample:,} of {whole:,} MB, taken evenly; --sample MB takes more or less")
    if reached < vocab_size:
        click.echo(_shortage(vocab_size, reached))


def _shortage(asked: int, reached: int) -> str:
    padded = -(-reached // PADDED_TO) * PADDED_TO
    return (
        f"asked were {asked:,}, but the text holds no more pairs to merge; GPT-NeoX will pad {reached:,} to "
        f"{padded:,}, the next multiple of {PADDED_TO} (make_vocab_size_divisible_by); more text gives more tokens"
    )


corpus.add_command(build)
corpus.add_command(audit)
