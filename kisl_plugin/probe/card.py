"""Which run card belongs to what lm_eval was told of a model, and the triples beside it."""

import json
import os
from collections import Counter
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from kisl_plugin.errors import InputError
from kisl_plugin.runcard import CARD_NAME, TRIPLES_NAME, RunCard, read_run_card, sha256
from kisl_plugin.triples import CONTROL, Triple, read_triples

KEYS = ("triples", "run_card", "background")
REMEDY = "copy both from the checkpoint, or export it again"


def card_folder(metadata: Mapping[str, Any]) -> Path | None:
    """The folder of the run card: what `run_card` names, else (without `triples`) the model's own if it has one.

    Raises:
        InputError: a key is misspelt, `run_card` and `triples` are both given, or two cards disagree.
    """
    _check_keys(metadata)
    own = _own_folder(metadata)
    if "run_card" not in metadata:
        return own if "triples" not in metadata else None
    path = Path(str(metadata["run_card"]))
    if path.is_file() and path.name != CARD_NAME:
        raise InputError(f"metadata: run_card {str(path)!r}; expected a file {CARD_NAME} or its folder")
    named = path.parent if path.name == CARD_NAME else path
    if own is not None and as_it_stands(own) != as_it_stands(named):
        raise InputError(
            f"metadata: run_card {str(path)!r} is not the model's own card {own / CARD_NAME}; leave run_card out, "
            "it is for models without a folder"
        )
    return named


def card_of(metadata: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The run card as it stands in its file, with keys that only newer readers know; None without one.

    Raises:
        InputError: it cannot be read.
    """
    folder = card_folder(metadata)
    return None if folder is None else as_it_stands(folder)


def as_it_stands(folder: Path) -> Mapping[str, Any]:
    """The card in `folder`, checked, with all its keys."""
    read_run_card(folder)
    card: Mapping[str, Any] = json.loads((folder / CARD_NAME).read_text(encoding="utf-8"))
    return card


def card_time(metadata: Mapping[str, Any]) -> int | None:
    """When the run card was written (ns): another run may have gone into the same folder."""
    folder = card_folder(metadata)
    return None if folder is None else (folder / CARD_NAME).stat().st_mtime_ns


def triples_beside(folder: Path, card: RunCard) -> list[Triple]:
    """The triples of the run, checked against its card.

    Raises:
        InputError: they are missing, or not those that the card counts.
    """
    path, card_path = folder / TRIPLES_NAME, folder / CARD_NAME
    if not path.is_file():
        raise InputError(f"{path}: missing, but {card_path} stands there; {REMEDY}")
    triples = read_triples(path)
    named, found = card.triples.get("sha256"), sha256(path.read_bytes().decode("utf-8"))
    if named is not None and named != found:
        raise InputError(f"{path}: its sha256 is {found}, but {card_path} says {named}; {REMEDY}")
    counts = Counter(triple.group for triple in triples if triple.group != CONTROL)
    expected = {"injected": (counts.total(), card.triples["count"])}
    for name, group in (card.groups or {}).items():
        expected[f"group {name!r}"] = (counts[name], group["count"])
    for what, (there, said) in expected.items():
        if there != said:
            raise InputError(f"{path}: {there} {what} triples, but {card_path} says {said}; {REMEDY}")
    return triples


def _check_keys(metadata: Mapping[str, Any]) -> None:
    for key in metadata:
        near = get_close_matches(key, KEYS, n=1, cutoff=0.8)
        if near and key not in KEYS:
            raise InputError(f"metadata: {key} is unknown; did you mean {near[0]}?")
    if "run_card" in metadata and "triples" in metadata:
        raise InputError(
            f"metadata: run_card {metadata['run_card']!r} and triples {metadata['triples']!r} are both given; "
            f"give one: a run card brings its own triples ({TRIPLES_NAME} beside it)"
        )


def _own_folder(metadata: Mapping[str, Any]) -> Path | None:
    """The model's folder, if it is one and holds a card, be it a broken one."""
    named = metadata.get("pretrained")
    if not isinstance(named, (str, os.PathLike)) or not os.fspath(named):
        return None
    folder = Path(named) / str(metadata.get("subfolder") or "")
    try:
        return folder if os.path.lexists(folder / CARD_NAME) else None
    except (OSError, ValueError):
        return None
