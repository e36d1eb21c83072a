from __future__ import annotations

from pathlib import Path

import pytest

from tlcompile.data.table import read_table, uneven
from tlcompile.errors.tables import MissingColumnError, UnreadableTableError


def write(tmp_path: Path, content: str | bytes) -> str:
    path = tmp_path / "labels.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_cells_are_read_with_or_without_a_mark(tmp_path: Path, mark: str, end: str) -> None:
    table = read_table(write(tmp_path, f'{mark}image,label{end}"a,b.png","the ""x"""{end}'))
    assert table.header == ("image", "label")
    assert table.rows == (("a,b.png", 'the "x"'),)


def test_place_of_a_cell_counts_quotes_commas_and_line_breaks(tmp_path: Path) -> None:
    table = read_table(write(tmp_path, 'image,note,label\na.png,"two\nlines",x\n"b,1.png",n,y\n'))
    assert table.lines == (2, 4)
    place = table.where(1, 2)
    assert (place.line, place.column) == (4, 13)
    assert table.where(0, 0).line == 2


def test_empty_lines_are_no_rows_and_count(tmp_path: Path) -> None:
    assert read_table(write(tmp_path, "image\n\na.png\n\nb.png\n")).lines == (3, 5)


def test_byte_that_is_no_utf8_is_named_with_its_place(tmp_path: Path) -> None:
    path = write(tmp_path, b"image,label\na.png,ants\nb.png,b\xe9es\n")
    with pytest.raises(UnreadableTableError, match="0xe9, which is no UTF-8") as caught:
        read_table(path)
    assert str(caught.value.where) == f"{path}:3:8"
    assert "iconv -f LATIN1 -t UTF-8" in caught.value.fix()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "nothing"),
        ("image,label\n", "no row"),
        ("image,image\na,b\n", "two columns 'image'"),
        ('image,label\na,"b"c\n', "expected"),
        ('image,label\na,"b\n', "unexpected end"),
    ],
)
def test_what_is_no_table(tmp_path: Path, content: str, reason: str) -> None:
    with pytest.raises(UnreadableTableError, match=reason) as caught:
        read_table(write(tmp_path, content))
    assert caught.value.where is not None


def test_missing_file_names_the_nearest(tmp_path: Path) -> None:
    path = write(tmp_path, "image\na\n")
    with pytest.raises(UnreadableTableError, match="did you mean") as caught:
        read_table(path.replace("labels", "label"))
    assert path in caught.value.fix()


def test_rows_of_another_length_are_all_named(tmp_path: Path) -> None:
    errors = uneven(read_table(write(tmp_path, "a,b\n1\n1,2\n1,2,3\n")))
    assert [error.where.line for error in errors if error.where] == [2, 4]


def test_missing_column_names_the_nearest_and_the_option(tmp_path: Path) -> None:
    table = read_table(write(tmp_path, "image,lable\na,b\n"))
    with pytest.raises(MissingColumnError, match="did you mean 'lable'"):
        table.column("label", "data.target")


def test_file_without_a_header_is_said_to_want_one(tmp_path: Path) -> None:
    table = read_table(write(tmp_path, "a.png,ants\nb.png,bees\n"))
    with pytest.raises(MissingColumnError, match="a first line with the columns' names"):
        table.column("image", "data.image")


def test_table_with_semicolons_is_recognised(tmp_path: Path) -> None:
    table = read_table(write(tmp_path, "image;label\na.png;ants\n"))
    with pytest.raises(MissingColumnError, match="separate the columns by commas"):
        table.column("image", "data.image")
