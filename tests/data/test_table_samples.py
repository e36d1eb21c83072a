from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tlcompile.data.answers import Answer
from tlcompile.data.samples import Samples, class_counts
from tlcompile.data.table_samples import SHOWN, scan_table
from tlcompile.errors.base import Problems
from tlcompile.errors.tables import BadCellError, ManyBadCellsError, UnreadableTableError

MakeTree = Callable[..., Path]
Scan = Callable[..., dict[str, Samples]]
CLASSES = {"": Answer("classification", ("label",))}


@pytest.fixture
def scan(make_tree: MakeTree) -> Scan:
    """Scan a table beside four images; what is said is kept in `said`."""
    root = make_tree("0.png", "1.png", "2.png", "sub/3.png")

    def scanned(text: str, answers: dict[str, Answer] = CLASSES, **given: object) -> dict:
        path = root / "labels.csv"
        path.write_text(text)
        given = {"image": "image", "split": None, "root": str(root), "channels": 3, **given}
        given.setdefault("say", lambda _line: None)
        return scan_table(str(path), answers, **given)  # type: ignore[arg-type]

    return scanned


def problems(scan: Scan, text: str, *args: object, **given: object) -> list[BadCellError]:
    with pytest.raises((Problems, BadCellError)) as caught:
        scan(text, *args, **given)
    error = caught.value
    return list(error.errors) if isinstance(error, Problems) else [error]


def test_labels_and_images_of_a_table(scan: Scan) -> None:
    found = scan("label,image\nbees,0.png\nants,sub/3.png\n bees ,2.png\n")["all"]
    assert found.classes == ("ants", "bees")
    assert found.labels == (1, 0, 1)
    assert [int(found.read(i)[0, 0, 0]) for i in range(3)] == [0, 3, 2]


def test_splits_of_a_table(scan: Scan) -> None:
    text = "image,label,fold\n0.png,b,train\n1.png,a,train\n2.png,a,test\nsub/3.png,b,val\n"
    found = scan(text, split="fold")
    assert {word: len(part) for word, part in found.items()} == {"train": 2, "val": 1, "test": 1}
    assert found["val"].classes == ("a", "b")
    assert found["val"].labels == (1,)


def test_absolute_paths_need_no_root(scan: Scan, make_tree: MakeTree) -> None:
    path = make_tree("far/9.png", root="other") / "far" / "9.png"
    assert scan(f"image,label\n{path},a\n")["all"].ids == (str(path),)


def test_several_labels_in_one_cell(scan: Scan) -> None:
    said: list[str] = []
    answers = {"": Answer("multilabel", ("tags",))}
    text = "image,tags\n0.png,red;small\n1.png,\n2.png,blue ; red\n"
    found = scan(text, answers, say=said.append)["all"]
    assert found.classes == ("blue", "red", "small")
    wanted = torch.tensor([[0.0, 1, 1], [0, 0, 0], [1, 1, 0]])
    assert torch.equal(found.targets().take([(0, 0), (1, 0), (2, 0)]), wanted)
    assert class_counts(found) == {"blue": 1, "red": 2, "small": 1}
    assert said[0].endswith("1 of 3 images have none of the labels")


def test_several_labels_in_columns_of_0_and_1(scan: Scan) -> None:
    answers = {"": Answer("multilabel", ("small", "red"))}
    found = scan("image,red,small\n0.png,1,0\n1.png,1,1\n", answers)["all"]
    assert found.classes == ("small", "red")  # as the recipe names them
    assert torch.equal(found.targets().take([(1, 0), (0, 0)]), torch.tensor([[1.0, 1], [0, 1]]))


def test_numbers_are_raw_and_have_their_columns_names(scan: Scan) -> None:
    answers = {"": Answer("regression", ("grams",))}
    found = scan("image,grams\n0.png,1.5\n1.png,-2e3\n", answers)["all"]
    assert found.classes == ("grams",)
    assert torch.equal(found.targets().take([(0, 0), (1, 0)]), torch.tensor([[1.5], [-2000.0]]))


def test_several_outputs_give_a_dict(scan: Scan) -> None:
    answers = {
        "species": Answer("classification", ("label",), "task.species.target"),
        "mass": Answer("regression", ("grams",), "task.mass.target"),
    }
    found = scan("image,label,grams\n0.png,b,1\n1.png,a,2\n2.png,b,3\n", answers)["all"]
    assert found.names == {"species": ("a", "b"), "mass": ("grams",)}
    taken = found.subset([2, 1]).targets().take([(0, 0), (1, 5)])
    assert isinstance(taken, dict)
    assert torch.equal(taken["species"], torch.tensor([1, 0]))
    assert torch.equal(taken["mass"], torch.tensor([[3.0], [2.0]]))
    assert class_counts(found, "species") == {"a": 1, "b": 2}


def test_masks_by_path(scan: Scan) -> None:
    answers = {"": Answer("segmentation", ("mask",))}
    found = scan("image,mask\n0.png,1.png\n", answers)["all"]
    assert [Path(mask).name for mask in found.masks] == ["1.png"]
    (error,) = problems(scan, "image,mask\n0.png,9.png\n", answers)
    assert error.problem == "no such mask"


def test_all_bad_cells_come_at_once_each_with_its_place(scan: Scan) -> None:
    text = (
        "image,label,grams,fold\n"
        "0.png,ants,1,train\n"
        "9.png,,x,valid\n"
        "1.png,wasps,inf,val\n"
        "2.png,ants,3,\n"
    )
    answers = {
        "species": Answer("classification", ("label",)),
        "mass": Answer("regression", ("grams",)),
    }
    found = problems(scan, text, answers, split="fold")
    assert [(e.where.line, e.where.column, e.problem) for e in found if e.where] == [
        (3, 1, "no such image"),
        (3, 7, "no label"),
        (3, 8, "no number"),
        (3, 10, "no split 'valid'"),
        (4, 7, "no training row has class 'wasps'"),
        (4, 13, "no number"),
        (5, 14, "no split"),
    ]
    assert found[3].fix() == "write val"


@pytest.mark.parametrize("cell", ["", "one", "nan", "1_000", '"1,5"', "1e99"])
def test_what_is_no_number(scan: Scan, cell: str) -> None:
    (error,) = problems(scan, f"image,g\n0.png,{cell}\n", {"": Answer("regression", ("g",))})
    assert error.problem == "no number"


@pytest.mark.parametrize("cell", ["", "yes", "2", "-1"])
def test_what_is_neither_0_nor_1(scan: Scan, cell: str) -> None:
    answers = {"": Answer("multilabel", ("a", "b"))}
    (error,) = problems(scan, f"image,a,b\n0.png,1,{cell}\n", answers)
    assert (error.problem, error.column) == ("neither 0 nor 1", "b")


def test_empty_label_between_others(scan: Scan) -> None:
    (error,) = problems(scan, "image,t\n0.png,a;;b\n", {"": Answer("multilabel", ("t",))})
    assert error.problem == "an empty label"


def test_label_without_a_training_row_cannot_be_learned(scan: Scan) -> None:
    with pytest.raises(UnreadableTableError, match="no training row has label b"):
        scan("image,a,b\n0.png,1,0\n", {"": Answer("multilabel", ("a", "b"))})


@pytest.mark.parametrize("other", ["bees,train", "ants,val"])
def test_one_image_with_two_answers_or_in_two_splits(scan: Scan, other: str) -> None:
    text = f"image,label,fold\n0.png,ants,train\n1.png,bees,train\n./0.png,{other}\n"
    (error,) = problems(scan, text, split="fold")
    assert error.problem == "the same image as in line 2, with other words"
    assert error.where is not None
    assert error.where.line == 4


def test_repeated_row_is_said(scan: Scan) -> None:
    said: list[str] = []
    found = scan("image,label\n0.png,a\n0.png,a\n", say=said.append)
    assert len(found["all"]) == 2
    assert said[0].endswith("1 rows repeat an earlier one; they count twice")


def test_table_without_training_rows(scan: Scan) -> None:
    found = problems(scan, "image,label,fold\n0.png,a,val\n", split="fold")
    assert [error.problem for error in found if error.column == "fold"] == [
        "no row is for training"
    ]


def test_of_very_many_bad_lines_the_first_are_shown(scan: Scan) -> None:
    text = "image,label\n" + "".join(f"x{n}.png,a\n" for n in range(SHOWN + 5))
    found = problems(scan, text)
    assert len(found) == SHOWN + 1
    assert isinstance(found[-1], ManyBadCellsError)
    assert found[-1].count == SHOWN + 5


def test_a_short_line_hides_nothing(scan: Scan) -> None:
    text = "image,label\n0.png\n1.png,\nno.png,a\n2.png,b,c\n"
    found = problems(scan, text)
    assert [error.where.line for error in found if error.where] == [2, 3, 4, 5]
    assert [error.problem for error in found] == [
        "the line ends too early", "no label", "no such image", "the line goes on"
    ]  # fmt: skip
    assert len(problems(scan, "image,label\n0.png\n1.png\n")) == 2


def test_a_column_that_is_no_split_is_told_once(scan: Scan) -> None:
    text = "image,label\n0.png,a\n1.png,b\n2.png,a\n"
    (error,) = problems(scan, text, split="label")
    assert error.problem == "no row says train, val or test"
    assert "drop data.split.column" in error.advice
    (one, *_others) = problems(scan, "image,label,fold\n0.png,a,training\n", split="fold")
    assert one.advice == "write train"
