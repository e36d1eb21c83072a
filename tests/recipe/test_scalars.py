"""YAML 1.2 scalars, numbers that remember their text, and recipes as text again."""

import copy
import math
import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tlcompile.recipe.nodes import HYDRA_WORDS, NOWHERE, Entry, Mapping, Scalar
from tlcompile.recipe.scalars import NumberFloat, NumberInt, resolve, to_data, to_yaml
from tlcompile.recipe.yaml_reader import read_recipe_text

TABLE = [
    ("yes", "yes"), ("no", "no"), ("on", "on"), ("off", "off"), ("y", "y"),
    ("010", 10), ("0o10", 8), ("0x1F", 31), ("-7", -7), ("+7", 7), ("1_000", "1_000"),
    ("1:30", "1:30"), ("12:30:45", "12:30:45"), ("2001-01-01", "2001-01-01"),
    ("1e-3", 0.001), ("1e3", 1000.0), ("+1e3", 1000.0), (".5", 0.5), ("1.", 1.0), ("-.5E2", -50.0),
    (".", "."), ("1.2.3", "1.2.3"), ("e3", "e3"), ("1e", "1e"), ("0x", "0x"), ("-0x1F", "-0x1F"),
    ("~", None), ("null", None), ("Null", None), ("NULL", None), ("", None), ("nULL", "nULL"),
    ("true", True), ("True", True), ("FALSE", False), ("tRUE", "tRUE"),
    (".inf", math.inf), ("-.Inf", -math.inf), ("inf", "inf"), ("nan", "nan"),
    ("\u0661", "\u0661"), ("=", "="), ("9**9**9", "9**9**9"), ("__import__('os')", "__import__('os')"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "value"), TABLE)
def test_plain(text, value):
    found = resolve(Scalar.from_text(text))
    assert found == value
    assert isinstance(found, type(value))
    if isinstance(found, NumberInt | NumberFloat):
        assert found.text == text


@pytest.mark.parametrize(("text", "value"), TABLE)
def test_from_a_file_it_is_the_same(text, value):
    assert to_data(read_recipe_text(f"a: {text}\n", "r")) == {"a": value}
    assert to_data(read_recipe_text(f'a: "{text}"\n', "r")) == {"a": text}


def test_nan_is_a_number():
    assert math.isnan(resolve(Scalar.from_text(".nan")))


def test_long_numbers_stay_text():
    assert resolve(Scalar.from_text("1" * 401)) == "1" * 401
    assert resolve(Scalar.from_text("0x" + "0" * 1_000_000)) == "0x" + "0" * 1_000_000
    assert resolve(Scalar.from_text("1" * 400)) == int("1" * 400)


@pytest.mark.parametrize("text", ["1.10", "3.0", "010"])
def test_numbers_keep_their_text_through_copy_and_pickle(text):
    number = resolve(Scalar.from_text(text))
    for other in (copy.deepcopy(number), pickle.loads(pickle.dumps(number))):
        assert (other, other.text) == (number, text)


def test_yaml_of_a_recipe_reads_well_and_keeps_numbers_as_written():
    text = (
        "base:\n  model: resnet18\nfreeze:\n  upto: 1.10\nremove:\n  classifier.6: drop\n"
        'fine_tune:\n  phases:\n    - lr: 1e-3\n      name: "no: 1"\n    - []\n'
    )
    assert to_yaml(read_recipe_text(text, "r")) == text


keys = st.text(min_size=1, max_size=20).filter(
    lambda key: (
        key.isprintable() and "${" not in key and key not in HYDRA_WORDS and key[:5] != "hydra"
    )
)
texts = st.text(max_size=30).filter(lambda text: "${" not in text and "\0" not in text)
numberlike = st.sampled_from(
    [text for text, _ in TABLE] + ["- a", "a: b", "#x", "...", "---", "a #b"]
)
leaves = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts | numberlike
data = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4)
)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(keys | numberlike.filter(bool), data, min_size=1, max_size=5))
def test_to_yaml_reads_back_to_equal_data(value):
    back = to_data(read_recipe_text(to_yaml(value), "r"))
    assert back == value
    assert repr(back) == repr(value)  # 1 is not 1.0 and not True


@settings(max_examples=100, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=30))
def test_any_plain_text_of_a_node_survives(text):
    if "\0" in text or "${" in text:
        return
    root = Mapping({"a": Entry(NOWHERE, Scalar.from_text(text))})
    back = to_data(read_recipe_text(to_yaml(root), "r"))["a"]
    assert repr(back) == repr(resolve(Scalar.from_text(text)))


def test_other_types_are_a_programmers_error():
    with pytest.raises(TypeError, match="set"):
        to_yaml({"a": {1}})
