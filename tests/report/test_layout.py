from __future__ import annotations

import itertools

import pytest

from report.graphs import Box, Inside, Line, drawn, edited, insides, row, scattered, summary
from tlcompile.compiler import prove_recipe
from tlcompile.graph.split import Boundary
from tlcompile.model.compiled import Summary
from tlcompile.recipe.schema import Recipe

NAMES = ["edited", "digits_net", "resnet18", *(f"scattered {seed}" for seed in range(40))]


def graph(name: str) -> tuple[Summary, tuple[Boundary, ...]]:
    if name == "edited":
        return edited()
    if name.startswith("scattered"):
        return scattered(int(name.split()[1])), ()
    recipe = {"base": {"model": name}, "freeze": {"upto": "stage2"}, "data": {"folder": "x"}}
    model = prove_recipe(Recipe.model_validate(recipe))
    return model.summary, model.boundary


@pytest.mark.parametrize("name", NAMES)
def test_nothing_overlaps_whatever_is_folded(name: str) -> None:
    found, boundary = graph(name)
    for unfold in (None, True, False):
        for inside in insides(drawn(found, boundary, unfold)):
            assert not list(collisions(inside)), (inside.name, unfold)


def collisions(inside: Inside) -> list[str]:
    """Return what lies on something else in one region."""
    found = [
        f"{one} on {other}"
        for one, other in itertools.combinations(inside.boxes, 2)
        if one.meets(other)
    ]
    found += [f"{t} on {b}" for t in inside.labels for b in inside.boxes if t.meets(b)]
    for line in inside.lines:
        found += [f"{line} through {b}" for b in inside.boxes for p in line.pieces() if cross(p, b)]
    for one, other in itertools.combinations(inside.lines, 2):
        if one.target != other.target and one.tensors != other.tensors and run_along(one, other):
            found.append(f"{one} along {other}")
    if inside.frame:
        outside = [b for b in inside.boxes if not within(b, inside.frame)]
        outside += [
            p for line in inside.lines for p in line.pieces() if not within(p, inside.frame)
        ]
        found += [f"{box} out of {inside.frame}" for box in outside]
    return found


def cross(piece: Box, box: Box) -> bool:
    """Return whether a line goes through a box; touching its edge is none."""
    across = piece.left < box.right and box.left < piece.right
    down = piece.top < box.bottom and box.top < piece.bottom
    return across and down


def within(box: Box, frame: Box) -> bool:
    return frame.left <= box.left and box.right <= frame.right and box.bottom <= frame.bottom


def run_along(one: Line, other: Line) -> bool:
    """Return whether two lines lie on each other for a while; crossing is none."""
    for a, b in itertools.product(one.pieces(), other.pieces()):
        same_x = a.left == a.right == b.left == b.right
        same_y = a.top == a.bottom == b.top == b.bottom
        if same_x and min(a.bottom, b.bottom) > max(a.top, b.top):
            return True
        if same_y and min(a.right, b.right) > max(a.left, b.left):
            return True
    return False


def test_a_skip_runs_beside_what_it_skips() -> None:
    svg = drawn(summary(row("x"), row("a", "x"), row("b", "a"), row("add", "b x")))
    (inside,) = insides(svg)
    skip = next(line for line in inside.lines if line.source == "x" and line.target == "add")
    boxes = {box.name: box for box in inside.boxes}
    assert min(x for x, _ in skip.corners) < min(boxes["a"].left, boxes["b"].left)
    straight = next(line for line in inside.lines if line.source == "a")
    assert len({x for x, _ in straight.corners}) == 1


def test_readers_stand_below_what_they_read() -> None:
    for seed in range(20):
        for inside in insides(drawn(scattered(seed), unfold=True)):
            boxes = {box.name: box for box in inside.boxes}
            for line in inside.lines:
                if line.source and line.target:
                    assert boxes[line.source].bottom < boxes[line.target].top


def test_a_parameter_stands_right_above_its_reader() -> None:
    svg = drawn(
        summary(row("x"), row("a", "x"), row("b", "a"), row("token"), row("add", "b token"))
    )
    (inside,) = insides(svg)
    boxes = {box.name: box for box in inside.boxes}
    assert boxes["token"].top == boxes["b"].top
    assert boxes["add"].left < 0 < boxes["add"].right
    assert boxes["token"].left > 0


def test_what_comes_in_passes_a_parameter_of_the_region() -> None:
    rows = [row("x"), row("enc.pos"), row("enc.add", "x enc.pos"), row("enc.out", "enc.add")]
    for inside in insides(drawn(summary(*rows), unfold=True)):
        assert not collisions(inside)


def test_folding_moves_only_what_is_below() -> None:
    rows = [row("x"), row("a.one", "x"), row("a.two", "a.one"), row("b", "a.two")]
    tops = {}
    for unfold in (True, False):
        root = next(insides(drawn(summary(*rows), unfold=unfold)))
        tops[unfold] = {box.name: box.top for box in root.boxes}
    assert tops[True]["x"] == tops[False]["x"]
    assert tops[True]["a"] == tops[False]["a"]
    assert tops[True]["b"] > tops[False]["b"]
