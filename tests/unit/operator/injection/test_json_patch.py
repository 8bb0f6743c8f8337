"""A patch makes the one of the other, and says no more than it must."""

import copy
import json

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from weir_operator.injection.json_patch import Operation, diff

NAMES = st.sampled_from(["a", "b", "/", "~", "~1", "", "a/b~0"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2) | st.floats(-1, 1) | st.sampled_from(["", "x", "~/"]),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(NAMES, below, max_size=4),
    max_leaves=12,
)
OBJECTS = st.dictionaries(NAMES, VALUES, max_size=4)


def apply(patch, document):
    """RFC 6902, as far as `diff` uses it, on what goes over the wire."""
    document = copy.deepcopy(document)
    for operation in json.loads(msgspec.json.encode(patch)):
        *above, last = [part.replace("~1", "/").replace("~0", "~") for part in operation["path"].split("/")[1:]]
        target = document
        for part in above:
            target = target[int(part)] if isinstance(target, list) else target[part]
        key = int(last) if isinstance(target, list) else last
        if operation["op"] == "remove":
            del target[key]
        else:
            assert operation["op"] == "add" or isinstance(target, list) or key in target
            target[key] = operation["value"]
    return document


@given(OBJECTS, OBJECTS)
def test_a_patch_makes_the_one_of_the_other(before, after):
    # As text, because in Python 1 == True == 1.0.
    assert json.dumps(apply(diff(before, after), before), sort_keys=True) == json.dumps(after, sort_keys=True)


@given(OBJECTS)
def test_nothing_is_said_of_what_is_the_same(document):
    assert diff(document, copy.deepcopy(document)) == []


def test_what_is_said_is_small():
    before = {"metadata": {"labels": {"a/b": "1"}}, "spec": {"containers": [{"name": "a"}, {"name": "b", "env": []}]}}
    after = {
        "metadata": {"labels": {"a/b": "2", "c~d": "3"}},
        "spec": {"containers": [{"name": "a"}, {"name": "b", "env": [1]}], "volumes": []},
    }
    assert diff(before, after) == [
        Operation("replace", "/metadata/labels/a~1b", "2"),
        Operation("add", "/metadata/labels/c~0d", "3"),
        Operation("replace", "/spec/containers/1/env", [1]),
        Operation("add", "/spec/volumes", []),
    ]


def test_on_the_wire_a_null_is_a_value_and_a_removal_has_none():
    patch = diff({"a": 1, "b": 1}, {"a": None})
    assert json.loads(msgspec.json.encode(patch)) == [
        {"op": "replace", "path": "/a", "value": None},
        {"op": "remove", "path": "/b"},
    ]
