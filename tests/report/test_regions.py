from __future__ import annotations

from dataclasses import replace

import pytest

from report.graphs import edited, regions, row, scattered, summary
from tlcompile.graph.split import Boundary
from tlcompile.model.compiled import Summary
from tlcompile.report.regions import Leaf, Link, Region, build_regions, name_of


def outline(region: Region) -> list[object]:
    """Return names, a region as [name, inside]."""
    return [
        child.row.name if isinstance(child, Leaf) else [child.name, outline(child)]
        for child in region.children
    ]


def opened(region: Region) -> set[str]:
    return {inner.name for inner in regions(region) if inner.expanded}


def large(*, origin: str = "kept") -> Summary:
    """Return a chain of 30 vertices in three regions; `origin` is of one in the middle one."""
    rows = [row("x")]
    for region in ("a", "b", "c"):
        for index in range(10):
            edit = origin if (region, index) == ("b", 5) else "kept"
            rows.append(row(f"{region}.v{index}", rows[-1].name, origin=edit, frozen=region == "a"))
    return summary(*rows)


def test_regions_follow_the_modules() -> None:
    rows = [row("x"), row("a.b.one", "x"), row("a.b.two", "a.b.one"), row("a.c", "a.b.two")]
    root = build_regions(summary(*rows), ())
    assert outline(root) == ["x", ["a", [["a.b", ["a.b.one", "a.b.two"]], "a.c"]], "output"]


def test_a_region_around_one_box_is_none() -> None:
    root = build_regions(summary(row("x"), row("heads.head", "x"), row("y", "heads.head")), ())
    assert outline(root) == ["x", "heads.head", "y", "output"]
    assert [child.label for child in root.children] == ["x", "heads.head", "y", "output"]


def test_a_module_that_is_used_twice_is_two_regions() -> None:
    rows = [row("x"), row("a.one", "x"), row("a.two", "a.one"), row("b", "a.two")]
    rows += [row("a.one_1", "b"), row("a.two_1", "a.one_1")]
    root = build_regions(summary(*rows), ())
    again = ["a", ["a.one_1", "a.two_1"]]
    assert outline(root) == ["x", ["a", ["a.one", "a.two"]], "b", again, "output"]


def test_a_number_keeps_the_word_before_it() -> None:
    rows = [row("x"), row("layer.0.conv", "x"), row("layer.0.bn", "layer.0.conv")]
    rows += [row("layer.1", "layer.0.bn")]
    layer = build_regions(summary(*rows), ()).children[1]
    assert isinstance(layer, Region)
    assert [child.label for child in layer.children] == ["layer.0", "layer.1"]


def test_removed_vertices_stand_where_they_stood() -> None:
    graph, boundary = edited()
    names = [leaf.row.name for leaf in build_regions(graph, boundary).leaves()]
    after = names.index("neck.reduce")
    assert names[after + 1 : after + 3] == ["neck.extra.conv", "neck.extra.relu"]
    assert names.index("classifier") == names.index("pool") + 1
    assert "size" not in names, "it carried no tensor"


def test_a_removed_vertex_tears_no_region_apart() -> None:
    rows = [row("x"), row("a.one", "x"), row("a.two", "a.one"), row("b", "a.two")]
    root = build_regions(summary(*rows, removed=(row("side", "a.one", origin="drop side"),)), ())
    assert outline(root) == ["x", ["a", ["a.one", "a.two"]], "side", "b", "output"]


@pytest.mark.parametrize("seed", range(20))
def test_every_read_can_be_followed_through_the_regions(seed: int) -> None:
    graph = scattered(seed)
    root = build_regions(graph, ())
    levels = [root, *regions(root)]
    for reader in root.leaves():
        known = {
            leaf.row.name: leaf for leaf in root.leaves() if reader.removed or not leaf.removed
        }
        for name in reader.row.reads:
            steps = [
                (link, level)
                for level in levels
                for link, found in level.links.items()
                if link.tensor is known[name] and reader in found
            ]
            assert [link.source for link, _ in steps if link.source is known[name]]
            assert [link.target for link, _ in steps if link.target is reader]
            across = [link for link, _ in steps if link.source and link.target]
            assert len(across) == 1, "in one region it goes from child to child"
            assert ends_meet(steps)


def ends_meet(steps: list[tuple[Link, Region]]) -> bool:
    """Return whether each region that a tensor enters or leaves has the rest of the way inside."""
    left = {level for link, level in steps if link.target is None}
    entered = {level for link, level in steps if link.source is None}
    sources = {link.source for link, _ in steps if isinstance(link.source, Region)}
    targets = {link.target for link, _ in steps if isinstance(link.target, Region)}
    return sources == left and targets == entered


def test_states() -> None:
    graph, boundary = edited()
    found = {leaf.row.name: leaf.states for leaf in build_regions(graph, boundary).leaves()}
    assert found["stem.conv"] == ("frozen",)
    assert found["neck.reduce"] == ("trains",)
    assert found["pool"] == ("kept",)
    assert found["body.1.conv1"] == ("resized",)
    assert found["body.1.mix"] == ("added", "frozen"), "random and frozen must be seen"
    assert found["fc"] == ("replaced",)
    assert found["classifier"] == ("removed",)


def test_the_freeze_point_is_in_the_region_that_reads_it() -> None:
    graph, boundary = edited()
    root = build_regions(graph, boundary)
    cuts = {r.name: [(name_of(n), b) for n, b in r.cuts] for r in [root, *regions(root)] if r.cuts}
    assert cuts == {"body": [("body.0", boundary[0])]}


def test_a_large_model_starts_folded() -> None:
    assert opened(build_regions(large(), ())) == set()


@pytest.mark.parametrize("origin", ["added", "replaced", "resized"])
def test_a_region_with_an_edit_starts_open(origin: str) -> None:
    assert opened(build_regions(large(origin=origin), ())) == {"b"}


def test_a_region_with_the_freeze_point_starts_open() -> None:
    assert opened(build_regions(large(), (Boundary("b.v4", (8, 4, 4), 512),))) == {"b"}


def test_what_was_removed_with_others_kept_starts_open() -> None:
    gone = row("c.gone", "c.v3", origin="drop c.gone")
    graph = replace(large(), removed=(gone,))
    assert opened(build_regions(graph, ())) == {"c"}
    whole = tuple(row(f"d.v{i}", "c.v9", origin="drop d") for i in range(3))
    assert opened(build_regions(replace(large(), removed=whole), ())) == set()


def test_a_small_model_starts_open() -> None:
    root = build_regions(summary(row("x"), row("a.one", "x"), row("a.two", "a.one")), ())
    assert opened(root) == {"a"}
