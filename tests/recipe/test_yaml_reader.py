"""Every refusal of the text layer, with its exact place."""

import itertools
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tlcompile.errors.base import Problems, TLCompileError
from tlcompile.errors.recipe import RecipeError, RecipeFileError
from tlcompile.recipe.nodes import MAX_LEVELS, locate
from tlcompile.recipe.scalars import to_data
from tlcompile.recipe.yaml_reader import MAX_BYTES, read_recipe_file, read_recipe_text


def refusals(text):
    """Read a text that must be refused; return the places and slugs."""
    with pytest.raises(TLCompileError) as caught:
        read_recipe_text(text, "r.yaml")
    error = caught.value
    found = error.errors if isinstance(error, Problems) else (error,)
    for one in found:
        assert isinstance(one, RecipeError)
        assert "fix" in str(one)
    return [(one.where.line, one.where.column, one.slug) for one in found]


REFUSED = [
    ("", 1, 1, "recipe-syntax"),
    ("# only a comment\n", 1, 1, "recipe-syntax"),
    ("- a\n", 1, 1, "recipe-syntax"),
    ("word\n", 1, 1, "recipe-syntax"),
    ("a: 1\nb: 2\na: 3\n", 3, 1, "duplicate-key"),
    ("a:\n  b: 1\n  'b': 2\n", 3, 3, "duplicate-key"),
    ("{a: 1, a: 2}", 1, 8, "duplicate-key"),
    ("a: &x 1\n", 1, 4, "forbidden-yaml"),
    ("a: *x\n", 1, 4, "forbidden-yaml"),
    ("a: &a [*a]\n", 1, 4, "forbidden-yaml"),
    ("a: *.jpg\n", 1, 4, "forbidden-yaml"),
    ("a:\n  <<: {b: 1}\n", 2, 3, "forbidden-yaml"),
    ("a: !!python/object/apply:os.system [id]\n", 1, 4, "forbidden-yaml"),
    ("a: !!python/name:os.system\n", 1, 4, "forbidden-yaml"),
    ("a: !include other.yaml\n", 1, 4, "forbidden-yaml"),
    ("a: !env HOME\n", 1, 4, "forbidden-yaml"),
    ("a: !!binary |\n  aGk=\n", 1, 4, "forbidden-yaml"),
    ("!!map {a: 1}: 2\n", 1, 1, "forbidden-yaml"),
    ("a: ! x\n", 1, 4, "forbidden-yaml"),
    ("a: !e!x 1\n", 1, 4, "forbidden-yaml"),
    ("a: !<tag:x> 1\n", 1, 4, "forbidden-yaml"),
    ("a: !<x\n", 1, 4, "forbidden-yaml"),
    ("%TAG ! tag:x,2000:\n---\na: 1\n", 1, 1, "forbidden-yaml"),
    ("%YAML 1.1\n---\na: 1\n", 1, 1, "forbidden-yaml"),
    ("a: 1\n---\nb: 2\n", 2, 1, "forbidden-yaml"),
    ("a: ${oc.env:AWS_SECRET_ACCESS_KEY}\n", 1, 4, "forbidden-yaml"),
    ('a: "x\\x24{hydra:runtime.cwd}"\n', 1, 4, "forbidden-yaml"),
    ("a:\n  ${b}: 1\n", 2, 3, "forbidden-yaml"),
    ("a:\n\tb: 1\n", 2, 1, "recipe-syntax"),
    ("a: 'x\nb: 1\n", 1, 4, "recipe-syntax"),
    ("a: [1, 2\nb: 3\n", 2, 2, "recipe-syntax"),
    ("a: {b: 1\n", 2, 1, "recipe-syntax"),
    ("a: b: c\n", 1, 5, "recipe-syntax"),
    ("a:\n  b: 1\n c: 2\n", 3, 2, "recipe-syntax"),
    ("a: 1\nb\nc: 2\n", 2, 1, "recipe-syntax"),
    ("a: @x\n", 1, 4, "recipe-syntax"),
    ("a: [,b]\n", 1, 5, "recipe-syntax"),
    ('a: "\\q"\n', 1, 6, "recipe-syntax"),
    ('a: "\\xZZ"\n', 1, 7, "recipe-syntax"),
    ('a: "\\U00110000"\n', 1, 7, "recipe-syntax"),
    ('a: "\\UFFFFFFFF"\n', 1, 7, "recipe-syntax"),
    ("%YAML " + "9" * 5000 + ".1\n---\na: 1\n", 1, 7, "recipe-syntax"),
    ("? [a]\n: 1\n", 1, 3, "recipe-syntax"),
    ("a: {: 1}\n", 1, 5, "recipe-syntax"),
    ("\ufeffa: 1\n", 1, 1, "forbidden-character"),
    ("a: 1\nb: \0\n", 2, 4, "forbidden-character"),
    ('a: "\\0"\n', 1, 4, "forbidden-character"),
    ('a: "\\ud800"\n', 1, 4, "forbidden-character"),
    ("a: \ud800\n", 1, 4, "forbidden-character"),
    ("a: x\rb: 1\n", 1, 5, "forbidden-character"),
    ("a: x\u2028b: 1\n", 1, 5, "forbidden-character"),
    ("a: \x1b[31m\n", 1, 4, "forbidden-character"),
    ("re\u200bsize: 1\n", 1, 1, "forbidden-character"),
    ('a: {"\\u202ex": 1}\n', 1, 5, "forbidden-character"),
    ("hydra: {run: {dir: /tmp}}\n", 1, 1, "not-overridable"),
    ("hydra.callbacks: 1\n", 1, 1, "not-overridable"),
    ("a:\n  - {_target_: os.system, _args_: [id]}\n", 2, 6, "not-overridable"),
    ("a: " + "[" * 2000, 1, 4 + MAX_LEVELS - 1, "recipe-too-big"),
    ("a: " + "{b: " * 100_000, 1, 4 + 4 * (MAX_LEVELS - 1), "recipe-too-big"),
    ("a: " + "x" * 10_000_000, 1, 1, "recipe-too-big"),
    ("ä" * (MAX_BYTES // 2 + 1), 1, 1, "recipe-too-big"),
    ("k" * 500 + ": 1\n", 1, 1, "recipe-too-big"),
]


@pytest.mark.parametrize(("text", "line", "column", "slug"), REFUSED)
def test_refused_at_its_place(text, line, column, slug):
    assert (line, column, slug) == refusals(text)[0]


def test_all_independent_problems_at_once():
    text = "a: 1\na: 2\nb: &x 1\nc: *x\nd: !t 1\ne: ${f}\n<<: {g: 1}\nh: [1\n"
    slugs = ["duplicate-key", *["forbidden-yaml"] * 5, "recipe-syntax"]
    assert [slug for *_, slug in refusals(text)] == slugs


def test_an_alias_bomb_costs_nothing():
    names = "abcdefghi"
    lines = ["a: &a [x]"]
    lines += [f"{n}: &{n} [{', '.join([f'*{m}'] * 9)}]" for m, n in itertools.pairwise(names)]
    assert len(refusals("\n".join(lines))) == 9 + 8 * 9  # expanded, it would be 9 ** 8 texts


@pytest.mark.parametrize(
    ("text", "column"), [("a: " + "x" * 10_000_000, 1), ("a: " + "[" * 2000, MAX_LEVELS + 3)]
)
def test_attacks_by_size_are_refused_at_once(text, column):
    assert refusals(text) == [(1, column, "recipe-too-big")]


def test_duplicate_key_names_both_places():
    with pytest.raises(RecipeError) as caught:
        read_recipe_text("base:\n  model: a\n  model: b\n", "r.yaml")
    assert caught.value.key == ("base", "model")
    assert str(caught.value) == (
        "r.yaml:3:3: key 'model' is given twice [duplicate-key]\n"
        "  first  r.yaml:2:3\n"
        "  fix    delete one of the two"
    )


def test_keys_are_text_and_everything_has_a_place():
    root = read_recipe_text("remove:\n  1.10: drop\n  3: [x, {null: y}]\r\nok: a\n", "r.yaml")
    assert to_data(root) == {"remove": {"1.10": "drop", "3": ["x", {"null": "y"}]}, "ok": "a"}
    places = {
        ("remove",): (2, 3),
        ("remove", "1.10"): (2, 9),
        ("remove", 3, 1, "null"): (3, 17),
        ("remove", "a_union_tag", "1.10"): (2, 9),
        ("remove", "3", 7): (3, 6),
        ("missing",): (1, 1),
    }
    for key, (line, column) in places.items():
        span = locate(root, key)
        assert (span.line, span.column) == (line, column), key
    span = locate(root, ("remove", "3"), want_key=True)
    assert (span.line, span.column) == (3, 3)


def test_a_document_start_and_end_are_fine():
    assert to_data(read_recipe_text("---\na: 1\n...\n", "r.yaml")) == {"a": 1}


def problems(text):
    try:
        read_recipe_text(text, "r.yaml")
    except Problems as several:
        return several.errors
    except TLCompileError as error:
        return (error,)
    return ()


@settings(max_examples=300, deadline=None)
@given(st.text(st.sampled_from("ab:-?{}[],&*!|>'\"%@`#~$<\\ \n\t\r\0\x85\ufeff01.Uu"), max_size=40))
def test_any_text_is_read_or_refused_with_a_place(text):
    for error in problems(text):
        assert error.where
        assert str(error)


def file_refusal(path):
    with pytest.raises(RecipeFileError) as caught:
        read_recipe_file(path)
    assert "fix" in str(caught.value)
    return caught.value


def test_files(tmp_path):
    (tmp_path / "flowers.yaml").write_bytes(b"a: 1\r\nb: 2\r\n")
    assert to_data(read_recipe_file(tmp_path / "flowers.yaml")) == {"a": 1, "b": 2}
    missing = file_refusal(tmp_path / "flower.yaml")
    assert missing.reason == "missing"
    assert f"did you mean '{tmp_path / 'flowers.yaml'}'?" in str(missing)
    assert file_refusal(tmp_path / "no" / "x.yaml").reason == "missing"
    assert file_refusal(tmp_path).reason == "directory"
    assert file_refusal("/dev/zero").reason == "not a file"
    assert file_refusal("a\0b").reason == "unreadable"
    os.mkfifo(tmp_path / "fifo")
    assert file_refusal(tmp_path / "fifo").reason == "not a file"
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert file_refusal(tmp_path / "loop").reason == "unreadable"


def test_files_that_are_not_text(tmp_path):
    latin = tmp_path / "latin.yaml"
    latin.write_bytes("a: 1\nb: \xe4\n".encode("latin-1"))
    error = file_refusal(latin)
    assert (error.reason, error.where.line, error.where.column) == ("not UTF-8", 2, 4)
    latin.write_text("a: 1\n", encoding="utf-16")
    assert file_refusal(latin).reason == "not UTF-8"
    latin.write_bytes(b"a: " + b"x" * MAX_BYTES)
    with pytest.raises(RecipeError, match="recipe-too-big"):
        read_recipe_file(latin)
