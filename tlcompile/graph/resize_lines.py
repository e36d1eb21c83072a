"""The lines of `resize`, and what they say together of one layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tlcompile.errors.edits import NoEffectError
from tlcompile.errors.resize import ResizeDisagreeError
from tlcompile.graph.width_run import WidthRun


@dataclass(frozen=True)
class Line:
    """One line of `resize`.

    Attributes:
        out: Output width.
        in_: Input width.
        init: Of the layer; None: the default of new layers.
        fan_out_init: Of its readers; None: as `init`.
        overlap: Keep the weights that both widths have.
    """

    out: int | None = None
    in_: int | None = None
    init: Any = None
    fan_out_init: Any = None
    overlap: bool = False


Lines = Mapping[str, Line]  # by the vertex as written


class Agreement:
    """What the lines that meet in a layer say of it; they must agree, so their order is nothing.

    Args:
        run: Which layers change, and because of which lines.
        lines: All lines.
        named: The vertex of the line that names a layer, by the layer's target.
        default: The initialiser where no line says one.
    """

    def __init__(self, run: WidthRun, lines: Lines, named: Mapping[str, str], default: Any) -> None:
        self._run = run
        self._lines = lines
        self._named = named
        self._default = default
        self._used: set[str] = set()

    def init(self, target: str) -> Any:
        """Return a layer's initialiser: its own line's, else that of the lines that reach it."""
        own = self._named.get(target)
        if own is not None and self._lines[own].init is not None:
            return self._lines[own].init
        reaching = sorted(self._meeting(target) - {own})
        said = {v: self._lines[v].fan_out_init for v in reaching}
        explicit = {v: init for v, init in said.items() if init is not None}
        self._used |= explicit.keys()
        if explicit:
            return self._one(target, "fan_out_init", explicit)
        if own is not None or not reaching:
            return self._default
        inits = {v: self._lines[v].init for v in reaching}
        words = {v: self._default if init is None else init for v, init in inits.items()}
        return self._one(target, "fan_out_init", words)

    def overlap(self, target: str) -> bool:
        """Tell whether a layer keeps what both widths have."""
        said = {v: self._lines[v].overlap for v in sorted(self._meeting(target))}
        return bool(self._one(target, "overlap", said))

    def refuse_unused(self) -> None:
        """Refuse an initialiser of readers where no reader is initialised by it.

        Raises:
            NoEffectError: There is one.
        """
        for vertex, line in self._lines.items():
            if line.fan_out_init is not None and vertex not in self._used:
                raise NoEffectError(
                    line=f"resize.{vertex}.fan_out_init",
                    because=f"no reader of '{vertex}' is initialised by it",
                    instead="drop it",
                    key=("resize", vertex, "fan_out_init"),
                )

    def lines_of(self, target: str) -> list[str]:
        """Return the lines because of which a layer changes, its own first."""
        own = self._named.get(target)
        return sorted(self._meeting(target), key=lambda vertex: (vertex != own, vertex))

    def _meeting(self, target: str) -> frozenset[str]:
        nothing = frozenset[str]()
        return self._run.wanted.lines.get(target, nothing) | self._run.input_lines.get(
            target, nothing
        )

    def _one(self, target: str, option: str, said: Mapping[str, Any]) -> Any:
        values = list(said.values())
        if any(value != values[0] for value in values):
            raise ResizeDisagreeError(
                name=target,
                option=option,
                lines=tuple(f"{vertex}: {value}" for vertex, value in said.items()),
                key=("resize", next(iter(said))),
            )
        return values[0]
