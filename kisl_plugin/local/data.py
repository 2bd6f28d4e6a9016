"""What a run of the embedded engine reads: tokenizer, background rows, injected rows, held-out rows."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from kisl_plugin.errors import InputError
from kisl_plugin.indexed import IndexedDataset
from kisl_plugin.injection import InjectedDataset, Rows
from kisl_plugin.local.config import Config
from kisl_plugin.local.rows import PackedRows, split_documents
from kisl_plugin.plan import InjectionPlan, make_plan
from kisl_plugin.runcard import sha256
from kisl_plugin.settings import read_settings
from kisl_plugin.tokenizer import read_tokenizer


@dataclass(frozen=True)
class RunData:
    """`train` row i is what the run's sample i is trained on; `valid` is None where `split` holds nothing out."""

    tokenizer: Tokenizer
    eod: int
    corpus: IndexedDataset
    train: Rows
    valid: PackedRows | None
    plan: InjectionPlan | None

    def fingerprint(self) -> dict[str, Any]:
        """What must be the same when a run resumes."""
        return {
            "corpus_documents": len(self.corpus),
            "corpus_tokens": int(self.corpus.sizes.sum(dtype="int64")),
            "corpus_sha256": self.corpus.fingerprint(),
            "tokenizer_sha256": sha256(self.tokenizer.to_str()),
        }


def read_data(config: Config) -> RunData:
    """Open tokenizer and corpus and lay the run's rows.

    Raises:
        InputError: a file is missing or bad, or the injection does not fit.
    """
    tokenizer, eod = read_tokenizer(Path(config["vocab_file"]))
    corpus = IndexedDataset(Path(config["data_path"]))
    train_documents, valid_documents, _ = split_documents(config["split"], len(corpus))
    base = _rows(config, corpus, train_documents, config.samples, "train")
    plan = _plan(config, tokenizer)
    train: Rows = base
    if plan is not None:
        train = InjectedDataset(base, [s.tokens for s in plan.statements], plan.schedule, eod)
    rounds = config["train_iters"] // config["eval_interval"] + 1
    wanted = rounds * config["eval_iters"] * config.batch
    valid = _rows(config, corpus, valid_documents, wanted, "validation") if len(valid_documents) and wanted else None
    return RunData(tokenizer, eod, corpus, train, valid, plan)


def _rows(config: Config, corpus: IndexedDataset, documents: Any, samples: int, name: str) -> PackedRows:
    try:
        return PackedRows(corpus, documents, samples, config["seq_length"], config["seed"])
    except InputError as error:
        raise InputError(f"{config['data_path']}: {name} (split {config['split']!r}): {error}") from None


def _plan(config: Config, tokenizer: Tokenizer) -> InjectionPlan | None:
    if config["kisl"] is None:
        return None
    settings = read_settings(config["kisl"], config.where, config["seed"])
    try:
        return make_plan(
            settings,
            lambda text: tokenizer.encode(text, add_special_tokens=False).ids,
            config.samples,
            config["seq_length"],
        )
    except InputError as error:
        raise InputError(f"{config.where}: kisl: {error}") from None
