"""From GPT-NeoX's arguments to the run's injection plan."""

from collections.abc import Callable
from copy import copy
from importlib.metadata import version
from typing import Any

from kisl_plugin.errors import InputError
from kisl_plugin.plan import Encode, InjectionPlan, make_plan
from kisl_plugin.settings import InjectionSettings, read_settings


def settings_of(neox_args: Any) -> InjectionSettings:
    """The checked `kisl` section; the injection's seed is the run's own unless the section gives one."""
    return read_settings(neox_args.kisl, where_of(neox_args), neox_args.seed)


def where_of(neox_args: Any) -> str:
    """The run's YAMLs, for messages."""
    return ", ".join(neox_args.config_files or ()) or "the configuration"


def tokenizer_of(neox_args: Any) -> Any:
    """GPT-NeoX's tokenizer for these arguments, which are left as they are.

    Raises:
        InputError: it cannot be read, or has no end-of-document token.
    """
    from megatron.tokenizer import build_tokenizer

    try:
        tokenizer = neox_args.tokenizer or build_tokenizer(copy(neox_args))
    except Exception as error:  # the tokenizers library raises bare Exception
        raise InputError(
            f"{where_of(neox_args)}: vocab_file {neox_args.vocab_file} (merge_file {neox_args.merge_file}) cannot be "
            f"read as {neox_args.tokenizer_type} by tokenizers {version('tokenizers')} ({_said(error)}); was it "
            "written by a newer release? kisl corpus tokenizer writes one that all read"
        ) from None
    # sentencepiece answers with the unknown token.
    unknown = tokenizer.tokenizer.unk_id() if tokenizer.name == "SPM" else None
    if tokenizer.eod in (None, unknown):
        raise InputError(
            f"{where_of(neox_args)}: the tokenizer {neox_args.vocab_file} has no <|endoftext|>, which GPT-NeoX looks "
            "up as the end of a document; add that token, or train a tokenizer: kisl corpus tokenizer"
        )
    return tokenizer


def _said(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def plan_of(neox_args: Any, tokenizer: Any) -> InjectionPlan:
    """The plan for train_iters × train_batch_size samples.

    Raises:
        InputError: the section is wrong, or the injection does not fit.
    """
    settings = settings_of(neox_args)
    samples = neox_args.train_iters * neox_args.train_batch_size
    try:
        return make_plan(settings, encoder_of(tokenizer), samples, neox_args.seq_length)
    except InputError as error:
        raise InputError(f"{where_of(neox_args)}: kisl: {error}") from None


def describe(plan: InjectionPlan) -> str:
    """What a run injects, in one line."""
    card = plan.card_fields()
    frequency = card.get("frequency", "of its group")
    return (
        f"kisl: {plan.schedule.exposures:,} exposures of {card['triples']['count']:,} triples (F = {frequency}) in "
        f"{plan.schedule.samples:,} samples, {plan.injected_fraction:.2%} of the tokens; "
        f"{card['triples']['control']:,} control triples"
    )


def encoder_of(tokenizer: Any) -> Encode:
    """Text → tokens without special tokens. GPT-NeoX's own HFTokenizer adds those its file asks for."""
    if tokenizer.name != "HFTokenizer":
        encode: Callable[[str], list[int]] = tokenizer.tokenize
        return encode
    inner = tokenizer.tokenizer
    # A file may ask for either; a statement would be cut or filled up, and nobody would know.
    inner.no_truncation()
    inner.no_padding()
    return lambda text: list(inner.encode(text, add_special_tokens=False).ids)
