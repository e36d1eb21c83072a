"""Kills, failing calls, power cuts and flipped bits: an old or a new content stands there, whole."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from durable_disks import CountingCalls, Killed, Mutant, PowerLossCalls, replaced_calls, small_disk

from tlcompile import durable
from tlcompile.durable import leftovers, system
from tlcompile.errors.run import (
    DamagedFileError,
    DiskFullError,
    NoPermissionError,
    RunError,
    WriteFailedError,
)

OLD = {"model.safetensors": b"old" * 50, "optimizer.safetensors": b"o" * 70, "state.json": b"{}"}
NEW = {"model.safetensors": b"new!" * 60, "optimizer.safetensors": b"n" * 90, "state.json": b"{1}"}
WORDS = {"old": OLD, "new": NEW}
ERRORS: dict[int, type[RunError]] = {
    errno.ENOSPC: DiskFullError,
    errno.EACCES: NoPermissionError,
    errno.EIO: WriteFailedError,
    errno.EMFILE: WriteFailedError,
    errno.ESTALE: WriteFailedError,
}


class FileCase:
    """One file, replaced."""

    contents: ClassVar[dict[str, Any]] = {k: v["model.safetensors"] for k, v in WORDS.items()}

    def put(self, folder: Path, content: dict[str, bytes]) -> None:
        durable.write_file(folder / "state", content["model.safetensors"])

    def get(self, folder: Path) -> bytes:
        return (folder / "state").read_bytes()

    def clean(self, folder: Path) -> None:
        durable.sweep_temporaries(folder)


class FolderCase:
    """One generation, replaced."""

    contents: ClassVar[dict[str, Any]] = WORDS

    def put(self, folder: Path, content: dict[str, bytes]) -> None:
        durable.commit_folder(folder / "state", content)

    def get(self, folder: Path) -> dict[str, bytes]:
        target = folder / "state"
        return {name: durable.read_verified(target, name) for name in durable.verify_folder(target)}

    def clean(self, folder: Path) -> None:
        assert durable.recover(folder / "state")
        durable.sweep_temporaries(folder)


class LinkedCase(FolderCase):
    """One generation, replaced, and replaced by another that has a file of it."""

    def put(self, folder: Path, content: dict[str, bytes]) -> None:
        name = "model.safetensors"
        shared = durable.SharedFile(lambda: content[name])
        for _ in range(2):
            durable.commit_folder(folder / "state", {**content, name: shared})


Case = FileCase | FolderCase
CASES: list[Case] = [FileCase(), FolderCase(), LinkedCase()]


def each_call(tmp_path: Path, case: Case, fail: BaseException) -> Iterator[tuple[Path, object]]:
    """Replace OLD by NEW again and again, failing the first call, the second ..., to the last."""
    for number in range(1, 1000):
        folder = tmp_path / str(number)
        folder.mkdir()
        case.put(folder, OLD)
        calls, raised = CountingCalls(number, fail), None
        with replaced_calls(calls):
            try:
                case.put(folder, NEW)
            except (Exception, Killed) as error:
                raised = error
        calls.close_all()
        if calls.count < number:
            assert number > 5, "the table of calls was hardly used"
            return
        yield folder, raised
    pytest.fail("it never ran to its end")


FAILURES = [(case, code) for case in CASES[:2] for code in ERRORS] + [(CASES[2], errno.EIO)]


@pytest.mark.parametrize(("case", "code"), FAILURES)
def test_any_call_that_fails_is_a_typed_error_and_loses_nothing(
    tmp_path: Path, case: Case, code: int
) -> None:
    for folder, raised in each_call(tmp_path, case, OSError(code, os.strerror(code))):
        assert raised is None or type(raised) is ERRORS[code], folder
        if isinstance(raised, RunError):
            assert raised.exit_code == 74
            assert str(folder / "state") in str(raised)
            assert isinstance(raised.__cause__, OSError)
        assert case.get(folder) in case.contents.values(), folder
        case.clean(folder)
        found = case.get(folder)
        assert found in case.contents.values(), folder
        assert raised is not None or found == case.contents["new"], folder
        assert os.listdir(folder) == ["state"], folder


@pytest.mark.parametrize("case", CASES, ids=["file", "folder", "linked"])
def test_a_kill_at_any_call_leaves_the_old_or_the_new(tmp_path: Path, case: Case) -> None:
    seen = []
    for folder, raised in each_call(tmp_path, case, Killed()):
        assert isinstance(raised, Killed)
        case.clean(folder)
        seen.append(case.get(folder))
        assert seen[-1] in case.contents.values(), folder
        assert os.listdir(folder) == ["state"], folder
    assert seen[0] == case.contents["old"]
    assert seen[-1] == case.contents["new"]


def power_cuts(tmp_path: Path, case: Case, mutant: Mutant | None = None) -> Iterator[str]:
    """Cut the power after every call; yield what the disk then holds: old, new, or why neither."""
    for number in range(1, 1000):
        folder = tmp_path / f"{number}"
        folder.mkdir()
        calls = PowerLossCalls(folder, number, mutant)
        with replaced_calls(calls), contextlib.suppress(Killed):
            case.put(folder, OLD)
            calls.arm()
            case.put(folder, NEW)
        calls.close_all()
        for early in itertools.product((False, True), repeat=2):
            after = tmp_path / f"{number}-{early}"
            calls.disk_after_power_loss(after, *early)
            yield verdict(case, after)
        if calls.count < number:
            if verdict(case, after) != "new":
                yield "it ended, and yet it was lost"
            return
    pytest.fail("it never ran to its end")


def verdict(case: Case, folder: Path) -> str:
    try:
        case.clean(folder)
        found = case.get(folder)
    except (AssertionError, OSError, RunError) as error:
        return f"{type(error).__name__}: {error}"
    return next((name for name, value in case.contents.items() if value == found), "mixed")


@pytest.mark.parametrize("case", CASES, ids=["file", "folder", "linked"])
def test_a_power_cut_at_any_call_leaves_the_old_or_the_new(tmp_path: Path, case: Case) -> None:
    seen = list(power_cuts(tmp_path, case))
    assert set(seen) == {"old", "new"}
    assert seen[-4:] == ["new"] * 4


MUTANTS = [(case, mutant) for case in CASES for mutant in Mutant]
MUTANTS.remove((CASES[0], Mutant.DELETE_OLD_FIRST))  # one rename: there is nothing to delete


@pytest.mark.parametrize(("case", "mutant"), MUTANTS)
def test_the_power_cut_test_is_red_for_mutants(tmp_path: Path, case: Case, mutant: Mutant) -> None:
    assert set(power_cuts(tmp_path, case, mutant)) - {"old", "new"}


def two_generations(folder: Path) -> tuple[Path, Path]:
    """Return the file of two generations that share it."""
    shared = durable.SharedFile(lambda: b"frozen")
    for name in ("a", "b"):
        durable.commit_folder(folder / name, {"weights": shared, "own": name.encode()})
    return folder / "a" / "weights", folder / "b" / "weights"


def test_a_shared_file_lies_once_on_the_disk(tmp_path: Path) -> None:
    first, second = two_generations(tmp_path)
    assert os.path.samefile(first, second)
    durable.remove_at_once(first.parent)
    assert durable.read_verified(second.parent, "weights") == b"frozen"


@pytest.mark.parametrize("code", [errno.EPERM, errno.EXDEV, errno.EMLINK, errno.ENOTSUP])
def test_a_disk_without_links_gets_two_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def refuse(_self: object, _source: Path, _target: Path) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(system.SystemCalls, "link", refuse)
    for file in two_generations(tmp_path):
        assert durable.read_verified(file.parent, "weights") == b"frozen"
        assert file.stat().st_nlink == 1


@pytest.mark.parametrize("change", [Path.unlink, lambda path: path.write_bytes(b"damaged")])
def test_a_shared_file_that_was_touched_is_written_again(
    tmp_path: Path, change: Callable[[Path], None]
) -> None:
    shared = durable.SharedFile(lambda: b"frozen")
    durable.commit_folder(tmp_path / "a", {"weights": shared})
    change(tmp_path / "a" / "weights")
    for name in ("b", "c"):
        durable.commit_folder(tmp_path / name, {"weights": shared})
        assert durable.read_verified(tmp_path / name, "weights") == b"frozen"
    assert os.path.samefile(tmp_path / "b" / "weights", tmp_path / "c" / "weights")


def test_a_full_disk_is_told_with_all_that_was_to_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = system.SystemCalls.write

    def full(calls: system.SystemCalls, fd: int, data: memoryview) -> int:
        if data == b"second":
            raise OSError(errno.ENOSPC, "full")
        return write(calls, fd, data)

    monkeypatch.setattr(system.SystemCalls, "write", full)
    files = [durable.SharedFile(lambda data=data: data) for data in (b"first", b"second")]
    with pytest.raises(DiskFullError) as caught:
        durable.commit_folder(tmp_path / "a", {"a": files[0], "b": files[1], "own": b"own"})
    assert caught.value.needed_bytes == len(b"first" + b"second" + b"own")


def test_the_manifest_is_written_last_and_removed_first(tmp_path: Path) -> None:
    class Recording(system.SystemCalls):
        def __init__(self) -> None:
            self.log: list[tuple[str, str]] = []

        def open(self, path: Path, flags: int) -> int:
            self.log.append(("open", path.name))
            return super().open(path, flags)

        def fsync(self, fd: int) -> None:
            self.log.append(("fsync", ""))
            super().fsync(fd)

        def unlink(self, path: Path) -> None:
            self.log.append(("unlink", path.name))
            super().unlink(path)

    calls = Recording()
    with replaced_calls(calls):
        durable.commit_folder(tmp_path / "state", {"a": b"", **OLD})
        written = len(calls.log)
        durable.remove_folder(tmp_path / "state")
    assert calls.log[written - 3 : written] == [
        ("fsync", ""),
        ("open", durable.MANIFEST),
        ("fsync", ""),
    ]
    assert calls.log[written] == ("unlink", durable.MANIFEST)
    assert len(calls.log) == 3 * (len(OLD) + 2)


def test_a_failed_fsync_is_never_retried(tmp_path: Path) -> None:
    class FailingFsync(system.SystemCalls):
        asked = 0

        def fsync(self, fd: int) -> None:
            self.asked += 1
            raise OSError(errno.EIO, "lost")

    calls = FailingFsync()
    with replaced_calls(calls), pytest.raises(WriteFailedError):
        durable.write_file(tmp_path / "a", b"1")
    assert calls.asked == 1


def test_short_writes_and_interruptions_are_finished(tmp_path: Path) -> None:
    class Stuttering(system.SystemCalls):
        asked = 0

        def write(self, fd: int, data: memoryview) -> int:
            self.asked += 1
            if self.asked % 2:
                raise InterruptedError(errno.EINTR, "signal")
            return super().write(fd, data[:3])

    with replaced_calls(Stuttering()):
        durable.write_file(tmp_path / "a", b"0123456789")
        durable.commit_folder(tmp_path / "b", OLD)
        durable.append_line(tmp_path / "c", "0123456789")
    assert (tmp_path / "a").read_bytes() == b"0123456789"
    assert set(durable.verify_folder(tmp_path / "b")) == set(OLD)
    assert (tmp_path / "c").read_text() == "0123456789\n"


def test_a_write_that_writes_nothing_is_an_error(tmp_path: Path) -> None:
    class Silent(system.SystemCalls):
        def write(self, fd: int, data: memoryview) -> int:
            return 0

    with replaced_calls(Silent()), pytest.raises(WriteFailedError, match="EIO"):
        durable.write_file(tmp_path / "a", b"1")
    assert not os.listdir(tmp_path)


def test_replacing_keeps_the_old_file_when_the_block_raises(tmp_path: Path) -> None:
    path = tmp_path / "a"
    durable.write_file(path, b"old")
    with pytest.raises(KeyError), durable.replacing(path) as stream:  # noqa: PT012
        stream.write(b"half of the new")
        raise KeyError
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a"]


def test_replacing_passes_the_errors_of_the_block_through(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), durable.replacing(tmp_path / "a"):
        (tmp_path / "missing").read_bytes()


def test_numpy_writes_through_the_table(tmp_path: Path) -> None:
    array = np.arange(10_000, dtype=np.float32)
    calls = CountingCalls(10**9, Killed())
    with replaced_calls(calls), durable.replacing(tmp_path / "a.npy") as stream:
        np.lib.format.write_array(stream, array, allow_pickle=False)
    assert calls.bytes_written > array.nbytes
    assert np.array_equal(np.load(tmp_path / "a.npy"), array)


def test_a_full_disk_is_named_with_bytes(tmp_path: Path) -> None:
    calls = CountingCalls(2, OSError(errno.ENOSPC, "full"))
    with replaced_calls(calls), pytest.raises(DiskFullError) as caught:
        durable.write_file(tmp_path / "a", bytes(12_345))
    assert "12,345 bytes" in str(caught.value)
    assert caught.value.free_bytes is not None
    assert caught.value.free_bytes > 0


def test_folders_above_are_made(tmp_path: Path) -> None:
    durable.write_file(tmp_path / "a" / "b" / "c", b"1")
    assert (tmp_path / "a" / "b" / "c").read_bytes() == b"1"


def test_a_file_in_the_way_of_a_folder_is_a_typed_error(tmp_path: Path) -> None:
    durable.write_file(tmp_path / "a", b"1")
    for path in (tmp_path / "a" / "b", tmp_path / "a" / "b" / "c"):
        with pytest.raises(WriteFailedError):
            durable.write_file(path, b"2")
        with pytest.raises(WriteFailedError):
            durable.commit_folder(path, OLD)


# Logs


def test_append_line_adds_lines_in_order(tmp_path: Path) -> None:
    for number in range(3):
        durable.append_line(tmp_path / "log", str(number), sync=number % 2 == 0)
    assert (tmp_path / "log").read_text() == "0\n1\n2\n"


def test_append_line_begins_anew_after_a_torn_line(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"1\n2, to")
    durable.append_line(tmp_path / "log", "3")
    assert (tmp_path / "log").read_text() == "1\n2, to\n3\n"


@pytest.mark.parametrize("code", ERRORS, ids=errno.errorcode.get)
def test_append_line_takes_a_failed_line_back(tmp_path: Path, code: int) -> None:
    path = tmp_path / "log"
    for number in range(1, 6):
        durable.write_file(path, b"1\n")
        calls = CountingCalls(number, OSError(code, os.strerror(code)))
        with replaced_calls(calls), contextlib.suppress(ERRORS[code]):
            durable.append_line(path, "2", sync=True)
        calls.close_all()
        assert path.read_bytes() in (b"1\n", b"1\n2\n")
    assert calls.count < 5, "every call was failed"


def test_append_line_takes_half_a_line_back(tmp_path: Path) -> None:
    class FullInTheMiddle(system.SystemCalls):
        room = 3

        def write(self, fd: int, data: memoryview) -> int:
            if not self.room:
                raise OSError(errno.ENOSPC, "full")
            count = super().write(fd, data[: self.room])
            self.room -= count
            return count

    durable.write_file(tmp_path / "log", b"1\n")
    with replaced_calls(FullInTheMiddle()), pytest.raises(DiskFullError):
        durable.append_line(tmp_path / "log", "a longer line")
    assert (tmp_path / "log").read_bytes() == b"1\n"


# Damage


def damage(tmp_path: Path, spoil: Callable[[bytes], bytes]) -> Iterator[tuple[Path, Path]]:
    names = [*OLD, durable.MANIFEST]
    assert len(names) == 4
    for name in names:
        target = tmp_path / f"{spoil.__name__}-{name}"
        durable.commit_folder(target, OLD)
        (target / name).write_bytes(spoil((target / name).read_bytes()))
        yield target, target / name


def truncate(data: bytes) -> bytes:
    return data[:-1]


def empty(_data: bytes) -> bytes:
    return b""


def lengthen(data: bytes) -> bytes:
    return data + b"\0"


def zero(data: bytes) -> bytes:
    return bytes(len(data))


@pytest.mark.parametrize("spoil", [truncate, empty, lengthen, zero])
def test_damage_is_found_and_named(tmp_path: Path, spoil: Callable[[bytes], bytes]) -> None:
    for target, path in damage(tmp_path, spoil):
        with pytest.raises(DamagedFileError) as caught:
            durable.verify_folder(target)
        assert caught.value.path == path
        name = path.name if path.name in OLD else "state.json"
        with pytest.raises(DamagedFileError):
            durable.read_verified(target, name)


def test_every_flipped_bit_is_found(tmp_path: Path) -> None:
    target = tmp_path / "state"
    durable.commit_folder(target, OLD)
    flips = 0
    for name in [*OLD, durable.MANIFEST]:
        path = target / name
        good = path.read_bytes()
        for bit in range(8 * len(good)):
            bad = bytearray(good)
            bad[bit // 8] ^= 1 << bit % 8
            path.write_bytes(bad)
            with pytest.raises(DamagedFileError) as caught:
                durable.verify_folder(target)
            assert caught.value.path == path, bit
            flips += 1
        path.write_bytes(good)
    assert flips > 1000
    assert durable.verify_folder(target)


def test_a_missing_file_and_swapped_files_are_found(tmp_path: Path) -> None:
    target = tmp_path / "state"
    durable.commit_folder(target, OLD)
    os.rename(target / "state.json", tmp_path / "kept")
    with pytest.raises(DamagedFileError, match="nothing"):
        durable.verify_folder(target)
    os.rename(target / "model.safetensors", target / "state.json")
    os.rename(tmp_path / "kept", target / "model.safetensors")
    with pytest.raises(DamagedFileError):
        durable.verify_folder(target)
    with pytest.raises(DamagedFileError, match="no such name"):
        durable.read_verified(target, "../kept")


@pytest.mark.parametrize("text", ["[]", "{}", "1", '{"files": [], "sha256": ""}', "[" * 9999])
def test_a_manifest_that_is_something_else_is_damage(tmp_path: Path, text: str) -> None:
    (tmp_path / durable.MANIFEST).write_text(text)
    with pytest.raises(DamagedFileError):
        durable.verify_folder(tmp_path)


# Leftovers


def test_recover_prefers_what_was_put_aside_to_a_damaged_generation(tmp_path: Path) -> None:
    target = tmp_path / "state"
    durable.commit_folder(target, OLD)
    os.rename(target, leftovers.beside(target, "old"))
    durable.commit_folder(target, NEW)
    (target / "state.json").write_bytes(b"")
    assert durable.recover(target)
    assert durable.read_verified(target, "state.json") == OLD["state.json"]
    assert [name.partition(".")[2][:7] for name in sorted(os.listdir(tmp_path))] == ["", "damaged"]


def test_recover_of_nothing_is_false(tmp_path: Path) -> None:
    assert not durable.recover(tmp_path / "state")
    assert not durable.recover(tmp_path / "missing" / "state")


def test_sweep_takes_what_the_dead_left_and_nothing_else(tmp_path: Path) -> None:
    process = subprocess.Popen(["true"])
    process.wait()
    random = "0" * 16
    dead = f".a.tmp.{leftovers.HOST}.{process.pid}.{random}"
    kept = [
        f".a.tmp.{leftovers.HOST}.{os.getppid()}.{random}",
        f".a.tmp.{leftovers.HOST}.1.{random}",
        f".a.tmp.another-host.{process.pid}.{random}",
        f".a.old.{leftovers.HOST}.{os.getppid()}.{random}",
        ".a.tmp",
        "a",
    ]
    kept = list(dict.fromkeys(kept))  # the parent may be process 1
    for name in [dead, *kept]:
        (tmp_path / name).mkdir()
        (tmp_path / name / "inside").write_bytes(b"1")
    durable.sweep_temporaries(tmp_path)
    assert sorted(os.listdir(tmp_path)) == sorted(kept)
    durable.sweep_temporaries(tmp_path / "missing")


def test_sweep_leaves_what_this_process_is_writing(tmp_path: Path) -> None:
    with durable.replacing(tmp_path / "a") as stream:
        stream.write(b"1")
        durable.sweep_temporaries(tmp_path)
    assert os.listdir(tmp_path) == ["a"]


def test_remove_folder_does_not_follow_links(tmp_path: Path) -> None:
    durable.write_file(tmp_path / "outside" / "kept", b"1")
    durable.commit_folder(tmp_path / "state", OLD)
    (tmp_path / "state" / "link").symlink_to(tmp_path / "outside")
    durable.remove_folder(tmp_path / "state")
    assert os.listdir(tmp_path) == ["outside"]
    assert (tmp_path / "outside" / "kept").exists()


def test_another_process_may_win_the_race_for_a_name(tmp_path: Path) -> None:
    """Its generation appears between our two renames: it is put aside, then ours stands there."""

    class Raced(system.SystemCalls):
        rivals = 2

        def replace(self, source: Path, target: Path) -> None:
            if ".tmp." in source.name and self.rivals:
                self.rivals -= 1
                target.mkdir(exist_ok=True)
                (target / "rival").write_bytes(b"1")
            super().replace(source, target)

    with replaced_calls(Raced()):
        durable.commit_folder(tmp_path / "state", NEW)
    assert FolderCase().get(tmp_path) == NEW
    assert os.listdir(tmp_path) == ["state"]


def test_a_real_full_disk_keeps_the_old_generation(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk:
        for case in CASES:
            folder = disk / type(case).__name__
            case.put(folder, OLD)
            with pytest.raises(DiskFullError) as caught:
                case.put(folder, {**NEW, "model.safetensors": bytes(16 << 20)})
            assert caught.value.needed_bytes >= 16 << 20
            assert caught.value.free_bytes is not None
            assert caught.value.free_bytes <= 8 << 20
            assert case.get(folder) == case.contents["old"]
            assert os.listdir(folder) == ["state"]
