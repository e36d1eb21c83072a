"""Checkpoints of a run: whole generations with digests, and the best weights that they refer to.

    checkpoints/000120/        state.safetensors, state.json, manifest.json
    checkpoints/best-000090/   weights.safetensors, state.json, manifest.json
    quarantine/                what was damaged

A generation names its best weights with the digest of their manifest, and they are on the disk
before it; what is old goes when the new one is on the disk. No pickle anywhere.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from tlcompile.durable import (
    MANIFEST,
    commit_folder,
    put_aside,
    read_verified,
    remove_at_once,
    sweep_temporaries,
)
from tlcompile.errors.resume import CheckpointsLostError
from tlcompile.errors.run import DamagedFileError

STATE: Final = "state.json"
TENSORS: Final = "state.safetensors"
WEIGHTS: Final = "weights.safetensors"  # of the best epoch
_GENERATION: Final = re.compile(r"\d{6,}")
_BEST: Final = re.compile(r"best-\d{6,}")


@dataclass(frozen=True)
class Saved:
    """A generation, every byte of it verified.

    Attributes:
        number: Its number.
        tensors: By name, on the CPU and contiguous: copy them into tensors that have the layout.
        data: As it was given.
        best: Weights of the best epoch so far; None: there has been none.
    """

    number: int
    tensors: dict[str, Tensor]
    data: dict[str, Any]
    best: dict[str, Tensor] | None


class Checkpoints:
    """The generations of one run.

    Args:
        folder: The run's.
        run: What names the run in each generation, so that one from elsewhere is not taken.
        keep: So many generations stay, and all best weights that they refer to.
        say: Takes a line for each damaged one.
    """

    def __init__(
        self,
        folder: Path,
        *,
        run: str = "",
        keep: int = 2,
        say: Callable[[str], None] = lambda _line: None,
    ) -> None:
        self.folder, self.quarantine = folder / "checkpoints", folder / "quarantine"
        self.run, self.keep, self.say = run, keep, say
        self._best: dict[str, str] | None = None  # what the next generation refers to

    def save(
        self,
        number: int,
        tensors: Mapping[str, Tensor],
        data: Mapping[str, Any],
        best: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Commit a generation; when this returns, it survives a power cut.

        Args:
            number: Greater than that of the one before.
            tensors: On any device, in any layout.
            data: JSON.
            best: Weights of the best epoch when they are new; None: they are as they were.

        Raises:
            RunError: The disk did not let it; the generations before stay.
        """
        if best is not None:
            name = f"best-{_name(number)}"
            commit_folder(
                self.folder / name, {STATE: self._head(number), WEIGHTS: _serialised(best)}
            )
            self._best = {"name": name, "sha256": _digest_of(self.folder / name)}
        state = self._head(number, best=self._best, data=data)
        commit_folder(self.folder / _name(number), {STATE: state, TENSORS: _serialised(tensors)})
        self._remove_old()

    def newest(self, *, never_anew: bool = False) -> Saved | None:
        """Read the newest generation that is whole; damaged ones go to quarantine.

        Call it once, before the first `save`: it also clears what killed processes left.

        Args:
            never_anew: Whether there must be one if there has been any.

        Returns:
            The generation; None: there is none, so the run starts at its beginning.

        Raises:
            CheckpointsLostError: All are damaged, and the run must not start over.
            RunError: The disk did not let it.
        """
        sweep_temporaries(self.folder)
        for name in reversed(self._generations()):
            try:
                return self._read(self.folder / name)
            except DamagedFileError as error:
                self._put_aside(self.folder / name, error)
        if never_anew and self.quarantine.is_dir():
            raise CheckpointsLostError(path=self.folder.parent, quarantine=self.quarantine)
        return None

    def clear(self) -> None:
        """Remove all generations of a run that is finished.

        Raises:
            RunError: The disk did not let it.
        """
        if self.folder.is_dir():
            remove_at_once(self.folder)

    def _head(self, number: int, **more: Any) -> bytes:
        return json.dumps({"run": self.run, "number": number, **more}).encode()

    def _generations(self) -> list[str]:
        names = [path.name for path in self.folder.iterdir()] if self.folder.is_dir() else []
        return sorted(filter(_GENERATION.fullmatch, names), key=int)

    def _read(self, folder: Path) -> Saved:
        state, tensors = self._state(folder), _tensors(folder, TENSORS)
        referred = state["best"]
        best = None
        if referred is not None:
            best = self._read_best(self.folder / referred["name"], referred["sha256"])
        self._best = referred
        return Saved(state["number"], tensors, state["data"], best)

    def _read_best(self, folder: Path, wanted: str) -> dict[str, Tensor]:
        """Read best weights; a damaged copy goes to quarantine, and who refers to it follows."""
        try:
            found = _digest_of(folder)
            if found != wanted:
                path = folder / MANIFEST
                raise DamagedFileError(
                    path=path, expected=f"sha256 {wanted}", found=f"sha256 {found}"
                )
            self._state(folder)
            return _tensors(folder, WEIGHTS)
        except DamagedFileError:
            if folder.is_dir():
                put_aside(folder, self.quarantine)
            raise

    def _state(self, folder: Path) -> dict[str, Any]:
        """Read what a folder says of itself, which must be what its name and its place say."""
        state: dict[str, Any] = json.loads(read_verified(folder, STATE))
        wanted = {"run": self.run, "number": int(folder.name.removeprefix("best-"))}
        found = {key: state.get(key) for key in wanted}
        if found != wanted:
            raise DamagedFileError(
                path=folder / STATE, expected=json.dumps(wanted), found=json.dumps(found)
            )
        return state

    def _put_aside(self, folder: Path, error: DamagedFileError) -> None:
        aside = put_aside(folder, self.quarantine)
        self.say(
            f"checkpoint  {folder.name} put aside, to '{aside}': '{error.path}', all of it: "
            f"expected {error.expected}, found {error.found}"
        )

    def _remove_old(self) -> None:
        """Remove what no kept generation needs; of a kept one that is damaged nobody knows it."""
        names = self._generations()
        for name in names[: -self.keep]:
            remove_at_once(self.folder / name)
        try:
            states = [self._state(self.folder / name) for name in names[-self.keep :]]
        except DamagedFileError:
            return
        needed = {state["best"]["name"] for state in states if state["best"]}
        for path in sorted(self.folder.iterdir()):
            if _BEST.fullmatch(path.name) and path.name not in needed:
                remove_at_once(path)


def _name(number: int) -> str:
    return f"{number:06}"


def _digest_of(folder: Path) -> str:
    """Identify a generation by its manifest, which has the digest of every file."""
    try:
        return hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest()
    except OSError as error:
        path = folder / MANIFEST
        raise DamagedFileError(path=path, expected="a manifest", found="none") from error


def _serialised(tensors: Mapping[str, Tensor]) -> bytes:
    """Return the bytes of a safetensors file; tensors that share memory are written one by one."""
    plain: dict[str, Tensor] = {}
    places: set[int] = set()
    for name, tensor in tensors.items():
        found = tensor.detach().cpu().contiguous()
        memory = found.untyped_storage()
        if memory.data_ptr() in places or memory.nbytes() != found.nbytes:
            found = found.clone()
        places.add(found.untyped_storage().data_ptr())
        plain[name] = found
    return save_tensors(plain)


def _tensors(folder: Path, name: str) -> dict[str, Tensor]:
    data = read_verified(folder, name)
    try:
        return load_tensors(data)
    except SafetensorError as error:
        path, found = folder / name, str(error)
        raise DamagedFileError(path=path, expected="tensors", found=found) from error
