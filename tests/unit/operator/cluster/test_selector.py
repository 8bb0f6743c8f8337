"""Label selectors: what they select, how they are refused, and that finding them by label finds the same."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weir_operator.cluster.selection import Selection
from weir_operator.cluster.selector import SelectorError, compile_selector, matches

LABELS = {"app": "shop", "tier": "web", "empty": ""}


def expression(key, operator, *values):
    return {"matchExpressions": [{"key": key, "operator": operator, "values": list(values)}]}


@pytest.mark.parametrize(
    ("selector", "selects"),
    [
        (None, True),
        ({}, True),
        ({"matchLabels": {}, "matchExpressions": []}, True),
        ({"matchLabels": {"app": "shop"}}, True),
        ({"matchLabels": {"app": "shop", "tier": "db"}}, False),
        ({"matchLabels": {"empty": ""}}, True),
        ({"matchLabels": {"absent": ""}}, False),
        (expression("app", "In", "bank", "shop"), True),
        (expression("app", "In", "bank"), False),
        (expression("absent", "In", "bank"), False),
        (expression("app", "NotIn", "shop"), False),
        (expression("app", "NotIn", "bank"), True),
        (expression("absent", "NotIn", "bank"), True),
        (expression("app", "Exists"), True),
        (expression("absent", "Exists"), False),
        (expression("app", "DoesNotExist"), False),
        (expression("absent", "DoesNotExist"), True),
        ({"matchLabels": {"app": "shop"}, **expression("tier", "Exists")}, True),
        ({"matchLabels": {"app": "shop"}, **expression("tier", "DoesNotExist")}, False),
        ({"matchExpressions": [{"key": "app", "operator": "Exists"}, {"key": "no", "operator": "Exists"}]}, False),
    ],
)
def test_what_is_selected(selector, selects):
    assert matches(selector, LABELS) is selects


@pytest.mark.parametrize(
    ("selector", "path"),
    [
        ({"matchLabel": {}}, "matchLabel"),
        ({"matchLabels": ["a"]}, "matchLabels"),
        ({"matchLabels": {"a": 1}}, "matchLabels.a"),
        ({"matchExpressions": {"key": "a"}}, "matchExpressions"),
        ({"matchExpressions": ["a"]}, "matchExpressions[0]"),
        ({"matchExpressions": [{"key": "a", "operator": "Exists", "value": "b"}]}, "matchExpressions[0].value"),
        ({"matchExpressions": [{"operator": "Exists"}]}, "matchExpressions[0].key"),
        ({"matchExpressions": [{"key": "a", "operator": "exists"}]}, "matchExpressions[0].operator"),
        ({"matchExpressions": [{"key": "a", "operator": []}]}, "matchExpressions[0].operator"),
        (expression("a", "In"), "matchExpressions[0].values"),
        (expression("a", "NotIn"), "matchExpressions[0].values"),
        (expression("a", "Exists", "b"), "matchExpressions[0].values"),
        ({"matchExpressions": [{"key": "a", "operator": "In", "values": [1]}]}, "matchExpressions[0].values"),
        ({"matchExpressions": [{"key": "a", "operator": "In", "values": "b"}]}, "matchExpressions[0].values"),
    ],
)
def test_what_cannot_be_read_is_refused_by_its_field(selector, path):
    with pytest.raises(SelectorError) as refused:
        compile_selector(selector)
    assert refused.value.path == path
    assert str(refused.value)


words = st.sampled_from("abc")
requirements = st.one_of(
    st.fixed_dictionaries(
        {
            "key": words,
            "operator": st.sampled_from(["In", "NotIn"]),
            "values": st.lists(words, min_size=1, max_size=3),
        }
    ),
    st.fixed_dictionaries({"key": words, "operator": st.sampled_from(["Exists", "DoesNotExist"])}),
)
selectors = st.fixed_dictionaries(
    {}, optional={"matchLabels": st.dictionaries(words, words), "matchExpressions": st.lists(requirements, max_size=3)}
)


@given(st.lists(selectors, max_size=8), st.dictionaries(words, words))
def test_a_selection_finds_what_asking_each_would(given_selectors, labels):
    selection = Selection(enumerate(map(compile_selector, given_selectors)))
    assert selection.of(labels) == tuple(
        rank for rank, selector in enumerate(given_selectors) if matches(selector, labels)
    )
