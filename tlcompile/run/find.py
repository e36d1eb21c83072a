"""Find a run by its folder, or by a unique prefix of its name."""

from __future__ import annotations

from pathlib import Path

from tlcompile.errors.finding import AmbiguousRunError, UnknownRunError

PLACES = ("runs", "sweeps")


def find_run(name: str) -> Path:
    """Return the folder that a name stands for.

    Args:
        name: A folder, or the beginning of the name of a finished run: in the folder that it
            names, else under runs/ and sweeps/.

    Raises:
        UnknownRunError: Nothing has this name.
        AmbiguousRunError: Several do.
    """
    path = Path(name)
    if path.is_dir():
        return path
    places = (path.parent,) if path.parent != Path() else tuple(map(Path, PLACES))
    runs = [f for place in places for f in (*place.glob("*"), *place.glob("*/*"))]
    finished = sorted(f for f in runs if (f / "bundle").is_dir())
    found = [f for f in finished if f.name.startswith(path.name)]
    if not found:
        raise UnknownRunError(name=name, runs=tuple(map(str, finished)))
    if len(found) > 1:
        raise AmbiguousRunError(name=name, runs=tuple(map(str, found)))
    return found[0]
