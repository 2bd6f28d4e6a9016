"""GPT-NeoX YAMLs at 0.8, 1.0 and 1.2 of a predicted F*: the runs that test the prediction."""

import textwrap
from dataclasses import replace
from pathlib import Path

import yaml

from kisl_plugin.errors import InputError
from kisl_plugin.files import write_atomically
from kisl_plugin.fit.predict import MAX_FRACTION, MeasuredSweep, Prediction
from kisl_plugin.fit.text import count, share_of_budget
from kisl_plugin.grid import DEMO_VOCABULARY, GRID, TINY, VOCABULARY, Facts, Run, Series, model_of, yaml_of
from kisl_plugin.plan import read_settings
from kisl_plugin.schedule import MOST_SAMPLES

__all__ = ["frequencies_of", "write_configs"]

SHARES = (0.8, 1.0, 1.2)
HEADER_WIDTH = 114


def frequencies_of(f_star: float) -> tuple[int, ...]:
    """0.8, 1.0 and 1.2 of F*, rounded to whole F of at least 1; fewer where they coincide. Rising."""
    return tuple(sorted({max(1, round(share * f_star)) for share in SHARES}))


def write_configs(prediction: Prediction, directory: Path, sweep: MeasuredSweep) -> list[Path]:
    """Write `directory`/predicted_<N>_<D>_f<F>.yml for each F of `frequencies_of`, with the sweep's triples.

    Nothing is written where one of them cannot be.

    Raises:
        InputError: nothing was predicted, the statements would not fit the budget, no model or run of that size can be
            made, a file of that name exists with another text, or the directory cannot be written to.
    """
    if prediction.f_star is None:
        raise InputError(f"no YAMLs without a predicted F*: {prediction.words}")
    frequencies, series = frequencies_of(prediction.f_star), _series(prediction, sweep)
    facts = series.training.facts
    triples = max(facts.count, prediction.triples or 0)
    share = triples * facts.tokens * frequencies[-1] / series.tokens
    if share > MAX_FRACTION:
        raise InputError(
            f"F = {frequencies[-1]:,} of {triples:,} triples takes {share_of_budget(share)} = {series.tokens:,}; "
            f"kisl.max_fraction allows {MAX_FRACTION:.0%}: plan with fewer --triples or more tokens"
        )
    header = _header(prediction, series, sweep)
    texts = {}
    for run in (Run(series, frequency) for frequency in frequencies):
        path = directory / f"{run.name}.yml"
        texts[path] = yaml_of(run, directory.as_posix(), header)
        read_settings(yaml.safe_load(texts[path])["kisl"], str(path), 0)  # the run would be refused here too
        if path.exists() and (not path.is_file() or path.read_bytes() != texts[path].encode()):
            raise InputError(f"{path}: exists with another text; move it, or name another folder for the YAMLs")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for path, text in texts.items():
            write_atomically(path, text)
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"{directory}: YAMLs cannot be written ({reason}); name another folder") from None
    return list(texts)


def _series(prediction: Prediction, sweep: MeasuredSweep) -> Series:
    """The runs of a model of that size, with the sweep's facts; what its run cards do not say is as in the grid."""
    training = TINY if sweep.seq_length == TINY.seq_length else GRID
    default = training.facts
    facts = Facts(
        source=sweep.source or default.source,
        count=sweep.triples or default.count,
        tokens=sweep.tokens_per_statement or default.tokens,
        template=default.template if sweep.template is None else sweep.template,
        form=sweep.form or default.form,
        spacing=sweep.spacing or default.spacing,
        window=sweep.window or default.window,
    )
    training = replace(training, facts=facts, budget=float(prediction.tokens))
    on_cpu = training.machine["distributed_backend"] == "gloo"
    model = model_of(prediction.params, sweep.vocabulary or (DEMO_VOCABULARY if on_cpu else VOCABULARY))
    if on_cpu:
        model = replace(model, micro_batch=None, recompute=False, model_parallel=1)
    model = replace(model, name=f"predicted_{count(prediction.params)}_{count(prediction.tokens)}".lower())
    series = Series(model, training, training.budget)
    samples = series.train_iters * training.batch
    if not 1 <= samples <= MOST_SAMPLES:
        raise InputError(
            f"tokens = {prediction.tokens:,}: {samples:,} rows of {training.seq_length:,} in batches of "
            f"{training.batch}; a run has 1 to {MOST_SAMPLES:,} rows"
        )
    return series


def _header(prediction: Prediction, series: Series, sweep: MeasuredSweep) -> list[str]:
    """What the YAML is for, and where it differs from what was planned, as lines."""
    made, planned, facts = series.model.shape.parameters, prediction.params, series.training.facts
    size = "N is as planned."
    if made != planned:
        size = f"N is {abs(made / planned - 1):.2%} {'below' if made < planned else 'above'} the planned {planned:,}."
    paragraphs = [
        f"Written by kisl-fit to test its prediction: {prediction.headline}, by {prediction.source}; "
        f"{prediction.words}.",
        f"{size} Settings are those of neox_configs (its README has the reasons); use the sweep's where it had others.",
    ]
    if sweep.triples and prediction.triples not in (None, sweep.triples):
        paragraphs.append(
            f"The prediction is for {prediction.triples:,} triples; this run states those of the sweep, "
            f"{facts.count:,}. To train on others, name them under kisl.triples."
        )
    if sweep.source is None:
        paragraphs.append(f"The sweep's run cards do not name their triples: replace {facts.source} by their name.")
    return [line for text in paragraphs for line in textwrap.wrap(" ".join(text.split()), HEADER_WIDTH)]
