"""Find a run by its folder, or by a unique prefix of its name."""

from __future__ import annotations

from pathlib import Path

from tlcompile.errors.finding import AmbiguousRunError, UnknownRunError

PLACES = ("runs", "sweeps")


def find_run(name: str) -> Path:
    """Return the folder that a name stands for.

    Args:
        name: A folder, or the beginning of the name of one under runs/ or sweeps/.

    Raises:
        UnknownRunError: Nothing has this name.
        AmbiguousRunError: Several do.
    """
    if Path(name).is_dir():
        return Path(name)
    folders = [f for place in PLACES for f in sorted(Path(place).glob("*")) if f.is_dir()]
    found = [f for f in folders if f.name.startswith(Path(name).name)]
    if not found:
        raise UnknownRunError(name=name, runs=tuple(str(f) for f in folders))
    if len(found) > 1:
        raise AmbiguousRunError(name=name, runs=tuple(str(f) for f in found))
    return found[0]
