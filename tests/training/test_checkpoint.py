"""Generations of a run: written whole, read whole or not at all, and no more of them than needed."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tlcompile.errors.resume import CheckpointsLostError
from tlcompile.training import checkpoint
from tlcompile.training.checkpoint import Checkpoints, Saved

RUN = "flowers-1a2b3c4d"


def of(number: int) -> dict[str, Tensor]:
    """Return the tensors of a generation."""
    return {"fc.weight": torch.full((3, 4), float(number)), "fc.weight/step": torch.tensor(number)}


def best_of(number: int) -> dict[str, Tensor]:
    return {"fc.weight": torch.full((3, 4), -float(number))}


def fill(folder: Path, numbers: range, bests: tuple[int, ...] = (1,)) -> Checkpoints:
    checkpoints = Checkpoints(folder, run=RUN)
    for number in numbers:
        best = best_of(number) if number in bests else None
        checkpoints.save(number, of(number), {"epoch": number}, best)
    return checkpoints


def newest(folder: Path, lines: list[str] | None = None) -> Saved | None:
    lines = [] if lines is None else lines
    return Checkpoints(folder, run=RUN, say=lines.append).newest()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "checkpoints").iterdir())


def same(one: dict[str, Tensor] | None, other: dict[str, Tensor] | None) -> bool:
    if one is None or other is None:
        return one is other
    return one.keys() == other.keys() and all(torch.equal(one[n], other[n]) for n in one)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_a_folder_without_checkpoints_has_none(tmp_path: Path) -> None:
    assert newest(tmp_path) is None
    assert Checkpoints(tmp_path).newest(never_anew=True) is None, "harmless on a fresh folder"
    assert not list(tmp_path.iterdir())


def test_what_was_saved_comes_back(tmp_path: Path) -> None:
    data = {"epoch": 3, "history": [0.1, math.inf, 1e-300, 0.30000000000000004], "best": None}
    Checkpoints(tmp_path, run=RUN).save(12, of(12), data, best_of(12))
    saved = newest(tmp_path)
    assert saved is not None
    assert saved.number == 12
    assert saved.data == data
    assert same(saved.tensors, of(12))
    assert same(saved.best, best_of(12))


def test_there_may_be_no_best_weights_yet(tmp_path: Path) -> None:
    fill(tmp_path, range(1, 2), bests=())
    saved = newest(tmp_path)
    assert saved is not None
    assert saved.best is None


def odd_tensors() -> dict[str, Tensor]:
    """Tensors that safetensors refuses, or that lie in memory in another order."""
    image = torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last)
    tied = torch.randn(4)
    return {
        "channels_last": image,
        "transposed": torch.randn(3, 5).t(),
        "part": image[:, 1],
        "expanded": torch.randn(1, 3).expand(4, 3),
        "tied": tied,
        "tied.too": tied,
        "scalar": torch.tensor(7),
        "empty": torch.zeros(0, 3),
        "not finite": torch.tensor([math.nan, math.inf, -0.0]),
        "half": torch.randn(3).to(torch.bfloat16),
        "double": torch.randn(3, dtype=torch.float64),
        "flag": torch.tensor([True, False]),
        "parameter": torch.nn.Parameter(torch.randn(3)),
    }


@pytest.mark.parametrize("name", odd_tensors())
def test_a_tensor_of_any_kind_keeps_its_bits(tmp_path: Path, name: str) -> None:
    tensors = odd_tensors()
    Checkpoints(tmp_path, run=RUN).save(1, tensors, {})
    saved = newest(tmp_path)
    assert saved is not None
    back, tensor = saved.tensors[name], tensors[name].detach()
    assert back.dtype == tensor.dtype
    assert torch.equal(back.contiguous().view(-1).view(torch.uint8), bits(tensor))
    back += 1 if back.dtype != torch.bool else True  # it may be changed in place


def bits(tensor: Tensor) -> Tensor:
    return tensor.contiguous().view(-1).view(torch.uint8)


def test_two_generations_stay_and_the_best_weights_they_refer_to(tmp_path: Path) -> None:
    checkpoints = fill(tmp_path, range(1, 6), bests=(2, 5))
    assert names(tmp_path) == ["000004", "000005", "best-000002", "best-000005"]
    checkpoints.save(6, of(6), {})
    assert names(tmp_path) == ["000005", "000006", "best-000005"]
    saved = newest(tmp_path)
    assert saved is not None
    assert same(saved.best, best_of(5))


def test_a_resumed_run_refers_to_the_best_weights_of_before(tmp_path: Path) -> None:
    fill(tmp_path, range(1, 4))
    resumed = Checkpoints(tmp_path, run=RUN)
    assert resumed.newest() is not None
    for number in range(4, 7):
        resumed.save(number, of(number), {})
    saved = newest(tmp_path)
    assert saved is not None
    assert same(saved.best, best_of(1))
    assert names(tmp_path) == ["000005", "000006", "best-000001"]


def test_numbers_are_ordered_as_numbers(tmp_path: Path) -> None:
    fill(tmp_path, range(999_999, 1_000_001), bests=())
    saved = newest(tmp_path)
    assert saved is not None
    assert saved.number == 1_000_000


@pytest.mark.parametrize("name", ["state.safetensors", "state.json", "manifest.json"])
def test_a_damaged_generation_is_put_aside_and_the_one_before_is_taken(
    tmp_path: Path, name: str
) -> None:
    fill(tmp_path, range(1, 4))
    path = tmp_path / "checkpoints" / "000003" / name
    flip(path)
    lines: list[str] = []
    saved = newest(tmp_path, lines)
    assert saved is not None
    assert same(saved.tensors, of(2))
    assert names(tmp_path) == ["000002", "best-000001"]
    (aside,) = (tmp_path / "quarantine").iterdir()
    assert (aside / name).is_file()
    (line,) = lines
    assert line.startswith(f"checkpoint  000003 put aside, to '{aside}': '{path}', all of it: ")
    if name != "manifest.json":
        assert line.count("sha256") == 2, "what was expected, and what was found"
    assert newest(tmp_path, lines) is not None
    assert len(lines) == 1, "told once"


def test_a_generation_without_its_best_weights_is_not_taken(tmp_path: Path) -> None:
    fill(tmp_path, range(1, 4), bests=(1, 3))
    flip(tmp_path / "checkpoints" / "best-000003" / "weights.safetensors")
    lines: list[str] = []
    saved = newest(tmp_path, lines)
    assert saved is not None
    assert saved.number == 2
    assert same(saved.best, best_of(1))
    assert names(tmp_path) == ["000002", "best-000001"]
    assert "best-000003/weights.safetensors" in lines[0]


def copy_over(source: Path, target: Path) -> None:
    """Let a folder have the files of another one, whole."""
    for path in target.iterdir():
        path.unlink()
    for path in source.iterdir():
        (target / path.name).write_bytes(path.read_bytes())


def test_a_stale_generation_is_known_by_its_number(tmp_path: Path) -> None:
    fill(tmp_path, range(1, 4))
    folder = tmp_path / "checkpoints"
    copy_over(folder / "000002", folder / "000003")
    lines: list[str] = []
    saved = newest(tmp_path, lines)
    assert saved is not None
    assert saved.number == 2
    assert '"number": 3' in lines[0]
    assert '"number": 2' in lines[0]


def test_a_generation_of_another_run_is_not_taken(tmp_path: Path) -> None:
    other = Checkpoints(tmp_path / "other", run="birds-0a0b0c0d")
    for number in range(1, 4):
        other.save(number, of(number), {})
    fill(tmp_path / "own", range(1, 4))
    folder = Path("checkpoints") / "000003"
    copy_over(tmp_path / "other" / folder, tmp_path / "own" / folder)
    lines: list[str] = []
    saved = newest(tmp_path / "own", lines)
    assert saved is not None
    assert saved.number == 2
    assert "birds-0a0b0c0d" in lines[0]


def test_best_weights_of_another_epoch_are_not_taken(tmp_path: Path) -> None:
    fill(tmp_path, range(1, 4), bests=(2, 3))
    folder = tmp_path / "checkpoints"
    copy_over(folder / "best-000002", folder / "best-000003")
    saved = newest(tmp_path)
    assert saved is not None
    assert saved.number == 2
    assert same(saved.best, best_of(2))


def test_best_weights_of_the_same_name_and_other_content_are_not_taken(tmp_path: Path) -> None:
    """As a run leaves them that has begun anew: whole, and of no generation that is here."""
    fill(tmp_path / "before", range(1, 4), bests=(1,))
    Checkpoints(tmp_path / "before", run=RUN).save(4, of(4), {}, best_of(7))
    fill(tmp_path / "own", range(1, 5), bests=(1, 4))
    folder = Path("checkpoints") / "best-000004"
    copy_over(tmp_path / "before" / folder, tmp_path / "own" / folder)
    saved = newest(tmp_path / "own")
    assert saved is not None
    assert saved.number == 3


def test_a_file_that_holds_no_tensors_is_damage_too(tmp_path: Path) -> None:
    fill(tmp_path, range(1, 3))
    folder = tmp_path / "checkpoints" / "000002"
    state = (folder / "state.json").read_bytes()
    copied = {"state.json": state, "state.safetensors": b"no tensors"}
    checkpoint.commit_folder(folder, copied)
    saved = newest(tmp_path)
    assert saved is not None
    assert saved.number == 1


def damage_all(folder: Path) -> None:
    for path in (folder / "checkpoints").glob("0*/state.safetensors"):
        flip(path)


def test_with_none_left_the_run_starts_over(tmp_path: Path) -> None:
    fill(tmp_path, range(1, 4))
    damage_all(tmp_path)
    lines: list[str] = []
    checkpoints = Checkpoints(tmp_path, run=RUN, say=lines.append)
    assert checkpoints.newest() is None
    assert len(lines) == 2
    checkpoints.save(1, of(1), {})
    saved = newest(tmp_path)
    assert saved is not None
    assert saved.best is None, "those that were left belong to nobody"
    assert names(tmp_path) == ["000001"]


def test_with_none_left_a_run_that_must_go_on_fails_each_time(tmp_path: Path) -> None:
    fill(tmp_path, range(1, 4))
    damage_all(tmp_path)
    for _ in range(2):  # a job that is queued again must not start over either
        with pytest.raises(CheckpointsLostError) as caught:
            Checkpoints(tmp_path, run=RUN).newest(never_anew=True)
        assert str(tmp_path / "quarantine") in str(caught.value)


def test_a_finished_run_keeps_none(tmp_path: Path) -> None:
    checkpoints = fill(tmp_path, range(1, 4))
    checkpoints.clear()
    checkpoints.clear()
    assert not list(tmp_path.iterdir())


def test_only_json_and_tensors_are_written(tmp_path: Path) -> None:
    fill(tmp_path, range(1, 4))
    for path in (tmp_path / "checkpoints").glob("*/*"):
        if path.suffix == ".json":
            found: Any = json.loads(path.read_bytes())
            assert isinstance(found, dict)
        else:
            assert path.suffix == ".safetensors"
