"""GPT-NeoX YAMLs at 0.8, 1.0 and 1.2 of a predicted F*: the runs that test the prediction."""

import textwrap
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import yaml

from kisl_plugin.errors import InputError
from kisl_plugin.files import write_atomically
from kisl_plugin.fit import text as human
from kisl_plugin.fit.predict import Prediction, Sweep, share_of_budget
from kisl_plugin.grid import (
    DEMO_VOCABULARY,
    GRID,
    TINY,
    VOCABULARY,
    Facts,
    Model,
    Run,
    Series,
    Training,
    model_of,
    yaml_of,
)
from kisl_plugin.plan import InjectionSettings, read_settings
from kisl_plugin.schedule import MOST_SAMPLES

SHARES = (0.8, 1.0, 1.2)
WIDEST = 114
MAX_FRACTION = InjectionSettings.max_fraction


def frequencies_of(f_star: float) -> tuple[int, ...]:
    """0.8, 1.0 and 1.2 of F*, rounded to whole F of at least 1; fewer where they coincide. Rising."""
    return tuple(sorted({max(1, round(share * f_star)) for share in SHARES}))


def write_configs(prediction: Prediction, directory: Path, sweep: Sweep) -> list[Path]:
    """Write `directory`/predicted_<N>_<D>_f<F>.yml for each F of `frequencies_of`, with the sweep's triples.

    Raises:
        InputError: nothing was predicted, the statements would not fit the budget, no model or run of that size can be
            made, a file of that name is there with another text, or the directory cannot be written to.
    """
    if prediction.f_star is None:
        raise InputError(f"no YAMLs without a predicted F*: {prediction.words}")
    frequencies = frequencies_of(prediction.f_star)
    series = _series(prediction, sweep)
    _refuse_excess(prediction, series, frequencies[-1])
    header = _header(prediction, series, sweep)
    texts = {
        directory / f"{run.name}.yml": yaml_of(run, directory.as_posix(), header)
        for run in (Run(series, frequency) for frequency in frequencies)
    }
    _refuse_others(texts)
    return _write(texts, directory)


def _series(prediction: Prediction, sweep: Sweep) -> Series:
    training = TINY if sweep.seq_length == TINY.seq_length else GRID
    training = replace(training, facts=_facts(training.facts, sweep), budget=float(prediction.tokens))
    name = f"predicted_{human.count(prediction.params)}_{human.count(prediction.tokens)}".lower()
    series = Series(name, _model(prediction.params, training, sweep), training, training.budget)
    samples = series.train_iters * training.batch
    if not 1 <= samples <= MOST_SAMPLES:
        raise InputError(
            f"tokens = {prediction.tokens:,}: {samples:,} rows of {training.seq_length:,} in batches of "
            f"{training.batch}; a run has 1 to {MOST_SAMPLES:,} rows"
        )
    return series


def _model(params: int, training: Training, sweep: Sweep) -> Model:
    on_cpu = training.machine["distributed_backend"] == "gloo"
    model = model_of(params, sweep.vocabulary or (DEMO_VOCABULARY if on_cpu else VOCABULARY))
    return replace(model, micro_batch=None, recompute=False, model_parallel=1) if on_cpu else model


def _facts(default: Facts, sweep: Sweep) -> Facts:
    """The sweep's facts; what its run cards do not say as in the grid."""
    return Facts(
        source=sweep.source or default.source,
        count=sweep.triples or default.count,
        tokens=sweep.tokens_per_statement or default.tokens,
        template=default.template if sweep.template is None else sweep.template,
        form=sweep.form or default.form,
        spacing=sweep.spacing or default.spacing,
        window=sweep.window or default.window,
    )


def _refuse_excess(prediction: Prediction, series: Series, frequency: int) -> None:
    facts = series.training.facts
    triples = max(facts.count, prediction.triples or 0)
    share = triples * facts.tokens * frequency / series.tokens
    if share > MAX_FRACTION:
        raise InputError(
            f"F = {frequency:,} of {triples:,} triples takes {share_of_budget(share)} = {series.tokens:,}; "
            f"kisl.max_fraction allows {MAX_FRACTION:.0%}: plan with fewer --triples or more tokens"
        )


def _header(prediction: Prediction, series: Series, sweep: Sweep) -> list[str]:
    paragraphs = [
        f"Written by kisl-fit, to test its prediction: {prediction.headline}, by {prediction.source}; "
        f"{prediction.words}.",
        f"{_size(series.model.shape.parameters, prediction.params)} "
        "Settings as in neox_configs (its README has the reasons): put in the sweep's where it had others.",
    ]
    if note := coincidence(prediction.f_star or 0):
        paragraphs.append(note)
    facts = series.training.facts
    if sweep.triples and prediction.triples not in (None, sweep.triples):
        paragraphs.append(
            f"Planned were {prediction.triples:,} triples; this run states those of the sweep, {facts.count:,}. "
            "To train on others, name them under kisl.triples."
        )
    if sweep.source is None:
        paragraphs.append(f"The sweep's run cards do not name their triples; name them in the place of {facts.source}.")
    return [line for text in paragraphs for line in textwrap.wrap(" ".join(text.split()), WIDEST)]


def _size(made: int, asked: int) -> str:
    if made == asked:
        return "N is what was asked for."
    return f"N is {abs(made / asked - 1):.2%} {'below' if made < asked else 'above'} the {asked:,} asked for."


def coincidence(f_star: float) -> str:
    """What to say where 0.8, 1.0 and 1.2 of F* are not three whole F; empty where they are."""
    found = frequencies_of(f_star)
    if len(found) == len(SHARES):
        return ""
    said = " and ".join(str(frequency) for frequency in found)
    return f"0.8, 1.0 and 1.2 of F* = {human.estimate(f_star)} round to F = {said} only."


def _refuse_others(texts: Mapping[Path, str]) -> None:
    for path, text in texts.items():
        read_settings(yaml.safe_load(text)["kisl"], str(path), 0)
        try:
            there = path.read_text(encoding="utf-8") if path.exists() else text
        except (OSError, ValueError):
            there = ""
        if there != text:
            raise InputError(f"{path}: is there with another text; move it, or name another folder for the YAMLs")


def _write(texts: Mapping[Path, str], directory: Path) -> list[Path]:
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for path, text in texts.items():
            write_atomically(path, text)
    except (OSError, UnicodeEncodeError) as error:
        raise InputError(
            f"{directory}: YAMLs cannot be written ({getattr(error, 'strerror', None) or error}); name another folder"
        ) from None
    return list(texts)
