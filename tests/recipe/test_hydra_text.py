"""Overrides through Hydra's real parser and sweeper, exact to the character."""

import pytest
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from tlcompile.errors.recipe import RecipeError
from tlcompile.recipe.flow import to_flow
from tlcompile.recipe.hydra_text import from_hydra, to_hydra_arguments
from tlcompile.recipe.nodes import HYDRA_WORDS, Entry, Mapping, Scalar, Sequence
from tlcompile.recipe.overrides import Override, parse_override

parser = OverridesParser.create()


def jobs(arguments):
    """Expand arguments as `hydra -m` does: one list of texts a job."""
    return BasicSweeper.split_arguments(parser.parse_overrides(arguments), None)[0]


def points(text):
    """Return what each job of one override reads."""
    override = parse_override(text)
    return [from_hydra(job[0], [override]) for job in jobs(to_hydra_arguments([override]))]


@pytest.mark.parametrize(
    ("text", "hydra"),
    [
        ("freeze.upto=layer3", "++freeze.upto='layer3'"),
        ("fine_tune.optimizer.lr=1e-3,1e-4", "++fine_tune.optimizer.lr='1e-3','1e-4'"),
        ("add.classifier.6.out=7", "++add.classifier.6.out='7'"),
        ("a={name:adamw,lr:1e-3}", "++a='{name: adamw, lr: 1e-3}'"),
        ("~remove.classifier.6", "++remove.classifier.6='{~}'"),
        ("lr=range(1,4)", "++lr=range(1,4)"),
        ("resize[classifier.3].out=1", "++resize._$classifier$2e$3.out='1'"),
        ("a.010=it's", "++a.$010='it\\'s'"),
    ],
)
def test_ordinary_keys_stay_readable(text, hydra):
    assert to_hydra_arguments([parse_override(text)]) == [hydra]


def test_text_is_kept_in_a_sweep():
    text = "freeze.upto=3.0,3.1,3.10,1e-3,no,010,'',\"a,b\",[x],{y: 1},a=b,C:\\,'\\',it's,~,"
    text += '"\\"","\'\\\\",{},[],"{~}","x\\ny"'
    values = parse_override(text).values
    assert [point.values for point in points(text)] == [(value,) for value in values]
    assert [value.text for value in values[:3]] == ["3.0", "3.1", "3.10"]


def test_sweep_functions_come_back_as_plain_numbers():
    assert [p.values[0] for p in points("a=range(1,4)")] == [Scalar(t, True) for t in "123"]
    assert [p.values[0].text for p in points("a=range(0,1,0.5)")] == ["0.0", "0.5"]
    (found,) = parser.parse_overrides(to_hydra_arguments([parse_override("a=interval(1,2)")]))
    assert found.is_interval_sweep()


def test_a_point_lends_the_places_of_the_typed_override():
    override = parse_override("freeze.upto=a,b", column=20)
    second = from_hydra("++freeze.upto='b'", [override])
    assert second.text == "freeze.upto=a,b"
    assert (second.span_of_key.column, second.values[0].span.column) == (20, 34)
    assert from_hydra("++lr=0.5", [parse_override("lr=interval(0,1)")]).text == "lr=interval(0,1)"


def test_repeated_keys_keep_every_value_in_order():
    typed = [parse_override(text) for text in ("a={b: 1}", "~a.b", "a={c: 2}", "a=3,4")]
    arguments = to_hydra_arguments(typed)
    assert len({argument.partition("=")[0] for argument in arguments}) == 4
    for job, last in zip(jobs(arguments), "34", strict=True):
        back = [from_hydra(text) for text in job]
        assert back[:3] == typed[:3]
        assert back[3].values == (Scalar(last, True),)


def test_hydra_composes_what_we_send_without_complaint():
    texts = ["a=x", "a.b=y", "a.b.3.c=z", "b='???'", "defaults=x", "c=[1]", "c.0=2", "~d", "3=x"]
    config = OmegaConf.create({})
    for override in parser.parse_overrides(to_hydra_arguments(map(parse_override, texts))):
        OmegaConf.update(config, override.key_or_group, override.value(), force_add=True)
    assert config.a.b["3"].c == "z"


@pytest.mark.parametrize(
    "text", ["a", "=1", "++a.$zz$=1", "++a.$110000$='x'", "++a='x", "++_target_='x'", "++a='{~'"]
)
def test_texts_that_are_not_ours_are_refused(text):
    with pytest.raises(RecipeError) as caught:
        from_hydra(text)
    assert "fix" in str(caught.value)


def fits(text):
    return "${" not in text and "\0" not in text


names = st.text(st.characters(exclude_categories=["Cc", "Cf", "Zl", "Zp", "Cs", "Cn"]), min_size=1)
names = names.filter(lambda name: fits(name) and name not in HYDRA_WORDS and name[:5] != "hydra")
parts = names.filter(lambda name: not set(name) & set(".[]=+~-")) | st.sampled_from(
    ["a", "classifier", "6", "010", "1_0", "$a", "x$2e$", "a-b"]
)
wholes = names.filter(lambda name: not set(name) & set("[]")).map(lambda name: f"[{name}]")


@st.composite
def typed_keys(draw):
    first = draw(parts.filter(lambda part: part != "output_dir"))
    rest = draw(st.lists(parts.map(lambda part: f".{part}") | wholes, max_size=4))
    return first + "".join(rest)


plain = st.text(st.characters(exclude_characters=",[]{}\0", exclude_categories=["Cs"]), max_size=12)
plain = plain.map(lambda text: text.strip(" \t")).filter(
    lambda text: fits(text) and text[:1] not in ("'", '"') and "(" not in text and ":" not in text
)
tricky = st.sampled_from(
    ["3.10", "3.0", "1e-3", "no", "010", "\\", "\\'", "'\\\\'", "{~}", "", " ", "a'"]
)
quoted = st.text(st.characters(exclude_categories=["Cs"]), max_size=12).filter(fits) | tricky
scalars = st.builds(Scalar, plain, st.just(True)) | st.builds(Scalar, quoted, st.just(False))
filled = scalars.filter(lambda scalar: scalar.text or not scalar.plain)
nodes = st.recursive(
    filled,
    lambda inner: (
        st.builds(Sequence, st.lists(inner, max_size=3))
        | st.builds(
            lambda pairs: Mapping({key: Entry(None, value) for key, value in pairs.items()}),
            st.dictionaries(names, inner, max_size=3),
        )
    ),
    max_leaves=6,
)


@settings(max_examples=150, deadline=None)
@given(typed_keys(), st.lists(nodes, min_size=1, max_size=4))
def test_round_trip_through_the_parser_and_the_sweeper(key, values):
    if any("${" in to_flow(value) for value in values):
        return
    override = Override("", False, key, tuple(values))
    back = [from_hydra(job[0]) for job in jobs(to_hydra_arguments([override]))]
    assert [one.values for one in back] == [(value,) for value in values]
    assert {(one.key, one.delete) for one in back} == {(key, False)}


@settings(max_examples=50, deadline=None)
@given(typed_keys())
def test_round_trip_of_deletions(key):
    override = Override("", True, key)
    assert [from_hydra(job[0]) for job in jobs(to_hydra_arguments([override]))] == [override]
