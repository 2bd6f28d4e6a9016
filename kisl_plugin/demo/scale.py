"""How large a demo is, and whose folder holds it."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from kisl_plugin.errors import InputError
from kisl_plugin.runcard import write_atomically


@dataclass(frozen=True)
class Scale:
    """How large a demo is."""

    frequencies: tuple[int, ...]
    objects: int  # of each relation
    injected: int  # facts of each object
    train_iters: int
    characters: int


FULL = Scale((0, 10, 20, 40, 60, 80, 100, 120), 11, 3, 586, 3_000_000)
QUICK = Scale((0, 4, 8, 12, 16), 11, 3, 90, 600_000)


def claim(out: Path, seed: int, scale: Scale) -> None:
    """Note in `out` whose demo it is; another's is not touched.

    Raises:
        InputError: `out` holds a demo of another seed or size, or cannot be written.
    """
    wanted = {"seed": seed, **asdict(scale), "frequencies": list(scale.frequencies)}
    stamp = out / "demo.json"
    try:
        if not stamp.is_file():
            out.mkdir(parents=True, exist_ok=True)
            write_atomically(stamp, json.dumps(wanted))
        found = dict(json.loads(stamp.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{stamp}: cannot be written or read ({error}); choose another --out") from None
    for key in wanted:
        if found.get(key) != wanted[key]:
            raise InputError(
                f"{out}: holds a demo with {key} = {found.get(key)!r}, asked is {wanted[key]!r}; choose another --out"
            )
