"""The files that a training run reads: which are not there yet, and the one command that makes each."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kisl_plugin.yamls import Yamls

DEMO = "kisl demo --only-data"
# The others take vocab_file for a name.
READ_FROM_FILES = ("hftokenizer", "gpt2bpetokenizer", "spmtokenizer")
TRIPLE_FILES = (".jsonl", ".csv", ".tsv", ".parquet")
DATA_KEYS = ("train_data_paths", "valid_data_paths", "test_data_paths")


def missing_files(yamls: Yamls) -> list[str]:
    """One line for each file that is not there: the key, the path, and the command that makes it."""
    values = yamls.values
    found = []
    vocabulary = values.get("vocab_file")
    is_file = str(values.get("tokenizer_type", "GPT2BPETokenizer")).lower() in READ_FROM_FILES
    if is_file and isinstance(vocabulary, str) and not Path(vocabulary).exists():
        made = f"kisl corpus tokenizer --input TEXT --output {vocabulary}"
        found.append(f"the tokenizer (vocab_file: {vocabulary}) · {_command(vocabulary, made)}")
    for key, prefix in _prefixes(values):
        if not all(Path(f"{prefix}{ending}").is_file() for ending in (".bin", ".idx")):
            made = (
                f"kisl corpus build --input TEXT --triples {_triples(values)} --tokenizer {vocabulary} "
                f"--output {prefix}"
            )
            found.append(f"the corpus ({key}: {prefix}.bin and .idx) · {_command(prefix, made)}")
    triples = _triples(values)
    if Path(triples).suffix.lower() in TRIPLE_FILES and not Path(triples).exists():
        found.append(f"the triples (kisl.triples: {triples}) · {_command(triples, 'a file of yours')}")
    return found


def _prefixes(values: Any) -> Iterator[tuple[str, str]]:
    if isinstance(values.get("data_path"), str):
        yield "data_path", values["data_path"]
    for key in DATA_KEYS:
        paths = values.get(key)
        for path in paths if isinstance(paths, list) else []:
            yield key, str(path)


def _triples(values: Any) -> str:
    section = values.get("kisl")
    return str(section.get("triples", "none")) if isinstance(section, dict) else "none"


def _command(path: str, otherwise: str) -> str:
    """What `kisl demo` makes stands in a folder of its name."""
    return DEMO if "kisl-demo" in Path(path).parts else otherwise
