"""A block is one immutable file; its name is the digest of all its bytes."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from stored_rows import about, keys_of, rows_of, same_bits
from torch import Tensor

from tlcompile.store import blocks
from tlcompile.store.about import DTYPES, About
from tlcompile.store.blocks import Block, NotABlockError, open_block, write_block

NUMBERS = range(7)


def written(folder: Path, of: About, rows: Tensor | None = None) -> Path:
    given = rows_of(NUMBERS, of) if rows is None else rows
    return folder / write_block(folder, of, keys_of(range(len(given))), given, 1.5)


def opened(path: Path, of: About) -> Block:
    blocks._verified.clear()
    return open_block(path, of)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (5,), (6, 5, 4), (2, 1, 3, 1)])
def test_a_block_gives_back_what_was_written(
    tmp_path: Path, shape: tuple[int, ...], dtype: str
) -> None:
    of = about(shape=shape, dtype=dtype)
    block = opened(written(tmp_path, of), of)
    assert same_bits(block.rows, rows_of(NUMBERS, of))
    assert (block.keys == keys_of(NUMBERS)).all()
    assert block.seconds == 1.5


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (0, 2, 3, 1), (0, 3, 2, 1), (2, 0, 1, 3)])
@pytest.mark.parametrize("shape", [(6, 5, 4), (6, 1, 4), (6, 1, 1), (1, 5, 4)])
def test_rows_keep_the_order_of_their_dimensions_in_memory(
    tmp_path: Path, shape: tuple[int, ...], order: tuple[int, ...]
) -> None:
    of = about(shape=shape)
    inverse = [order.index(d) for d in range(4)]
    rows = rows_of(NUMBERS, of).permute(order).contiguous().permute(inverse)
    block = opened(written(tmp_path, of, rows), of)
    assert same_bits(block.rows, rows)
    assert block.order == blocks.memory_order(rows)
    assert block.rows.permute(block.order).is_contiguous()


def test_rows_may_be_views_of_something_larger(tmp_path: Path) -> None:
    of = about()
    large = rows_of(range(20), of)
    block = opened(written(tmp_path, of, large[3:17:2]), of)
    assert same_bits(block.rows, large[3:17:2])


def test_the_name_is_the_digest_of_the_whole_file(tmp_path: Path) -> None:
    path = written(tmp_path, about())
    assert path.name == hashlib.sha256(path.read_bytes()).hexdigest() + ".rows"
    assert written(tmp_path, about()) == path, "the same rows are the same file"


def test_the_file_can_be_read_by_its_description(tmp_path: Path) -> None:
    """A line of JSON, keys at a multiple of 32, rows at a page: nothing but the docstring is used."""
    of = about()
    data = written(tmp_path, of).read_bytes()
    line, _, rest = data.partition(b"\n")
    header = json.loads(line)
    assert header["key"] == of.key
    assert (header["shape"], header["order"], header["rows"]) == ([6, 5, 4], [0, 1, 2, 3], 7)
    keys, rows = keys_of(NUMBERS).tobytes(), blocks.bits_of(rows_of(NUMBERS, of)).tobytes()
    assert data.find(keys) == -(-(len(line) + 1) // 32) * 32
    assert data.find(rows) % blocks.PAGE == 0
    assert data.endswith(rows)
    assert rest.count(0) > 100, "zeros between them"


def test_what_does_not_fit_the_set_is_not_written(tmp_path: Path) -> None:
    of, rows = about(), rows_of(NUMBERS, about())
    bad: list[tuple[Any, Any]] = [
        (keys_of(range(6)), rows),
        (keys_of(NUMBERS), rows[:, :5]),
        (keys_of(NUMBERS), rows.double()),
        (keys_of(NUMBERS).astype("int64"), rows),
    ]
    for keys, given in bad:
        with pytest.raises(AssertionError):
            write_block(tmp_path, of, keys, given, 1.0)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "other",
    [
        about("b"),
        about(shape=(6, 4, 5)),
        about(dtype="bfloat16"),
        About(about().key, "b", (5,), "uint8"),
    ],
)
def test_a_block_of_another_set_is_refused_by_name(tmp_path: Path, other: About) -> None:
    path = written(tmp_path, about())
    with pytest.raises(NotABlockError, match=about().key):
        opened(path, other)


Change = Callable[[dict[str, Any]], object]
LIES: dict[str, Change] = {
    "a later format": lambda h: h.update(format=2),
    "another byte order": lambda h: h.update(byte_order="big"),
    "more rows": lambda h: h.update(rows=8),
    "fewer rows": lambda h: h.update(rows=6),
    "many rows": lambda h: h.update(rows=10**15),
    "negative rows": lambda h: h.update(rows=-7),
    "rows as text": lambda h: h.update(rows="7"),
    "rows as yes": lambda h: h.update(rows=True),
    "no order": lambda h: h.update(order=[]),
    "half an order": lambda h: h.update(order=[0, 1]),
    "an order twice": lambda h: h.update(order=[0, 1, 1, 2]),
    "rows not outermost": lambda h: h.update(order=[1, 0, 2, 3]),
    "an order of texts": lambda h: h.update(order=["0", "1", "2", "3"]),
    "another shape": lambda h: h.update(shape=[6, 5, 5], order=[0, 1, 2, 3]),
    "a shape of halves": lambda h: h.update(shape=[6, 5, 4.0]),
    "a shape of lists": lambda h: h.update(shape=[[6], 5, 4]),
    "no shape": lambda h: h.pop("shape"),
    "another dtype": lambda h: h.update(dtype="uint8"),
    "an unknown dtype": lambda h: h.update(dtype="object"),
    "a dtype of lists": lambda h: h.update(dtype=[]),
    "a key that is a path": lambda h: h.update(key="../../etc"),
    "one field more": lambda h: h.update(pickle="gASVAA=="),
    "seconds as text": lambda h: h.update(seconds="1"),
}


def forged(folder: Path, data: bytes) -> Path:
    """A file with the right digest in its name."""
    path = folder / f"{hashlib.sha256(data).hexdigest()}.rows"
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("lie", LIES)
def test_a_first_line_that_lies_is_refused(tmp_path: Path, lie: str) -> None:
    line, _, rest = written(tmp_path, about()).read_bytes().partition(b"\n")
    header = json.loads(line)
    LIES[lie](header)
    path = forged(tmp_path, json.dumps(header).encode() + b"\n" + rest)
    with pytest.raises(NotABlockError):
        opened(path, about())


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\n",
        b"{}\n",
        b"[]\n",
        b"[" * 10_000,
        b"1\n",
        b"\xff\xfe",
        b"{" + b" " * 100_000,
        b"null\n",
    ],
)
def test_a_file_that_is_something_else_is_refused(tmp_path: Path, data: bytes) -> None:
    path = forged(tmp_path, data)
    with pytest.raises(NotABlockError):
        opened(path, about())
    with pytest.raises(NotABlockError):
        blocks.read_header(path)


def test_bytes_after_the_rows_are_refused(tmp_path: Path) -> None:
    path = forged(tmp_path, written(tmp_path, about()).read_bytes() + b"\0")
    with pytest.raises(NotABlockError, match="its first line says"):
        opened(path, about())


def test_a_block_is_read_whole_once_a_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Path] = []

    def read_whole(path: Path) -> Any:
        read.append(path)
        return before(path)

    before = blocks._read_whole
    monkeypatch.setattr(blocks, "_read_whole", read_whole)
    path = written(tmp_path, about())
    for _ in range(3):
        open_block(path, about())
    assert read == [path]
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.unlink()
    path.write_bytes(data)
    with pytest.raises(NotABlockError, match="sha256"):
        open_block(path, about())


def test_a_block_that_has_gone_is_told_as_such(tmp_path: Path) -> None:
    path = written(tmp_path, about())
    blocks._verified.clear()
    header = blocks.verify_block(path)
    path.unlink()
    with pytest.raises(FileNotFoundError):
        blocks.open_block(path, about())
    with pytest.raises(FileNotFoundError):
        blocks._mapped(path, header)


def test_mapped_rows_stay_when_the_file_goes(tmp_path: Path) -> None:
    of = about()
    path = written(tmp_path, of)
    block = opened(path, of)
    path.unlink()
    assert same_bits(block.rows, rows_of(NUMBERS, of))


def test_mapped_rows_are_private(tmp_path: Path) -> None:
    """A slip that writes into them changes no file and no other process."""
    of = about()
    path = written(tmp_path, of)
    opened(path, of).rows.zero_()
    assert same_bits(opened(path, of).rows, rows_of(NUMBERS, of))


def test_no_file_stays_open(tmp_path: Path) -> None:
    """Thousands of blocks may be mapped; a process may have a thousand open files."""
    of = about()
    path = written(tmp_path, of)
    before = len(list(Path("/proc/self/fd").iterdir()))
    kept = [opened(path, of) for _ in range(20)]
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    assert len(kept) == 20


def test_every_row_is_aligned(tmp_path: Path) -> None:
    block = opened(written(tmp_path, about()), about())
    assert block.rows.data_ptr() % 64 == 0
    assert block.rows.numel() == 7 * math.prod(about().shape)
    assert torch.equal(block.rows.isnan(), rows_of(NUMBERS, about()).isnan())
