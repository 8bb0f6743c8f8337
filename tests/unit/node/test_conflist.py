"""Our entry in other people's configuration: put in once, taken out, and everything else as it was."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weir_sidecar.node.conflist import ConflistError, with_entry, without_entry

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
_PLUGIN = st.dictionaries(st.text(max_size=5), _JSON, max_size=3).map(lambda plugin: {"type": "bridge", **plugin})
_CONFLIST = st.builds(
    lambda more, plugins: {**more, "plugins": plugins},
    st.dictionaries(st.text(max_size=8), _JSON, max_size=4),
    st.lists(_PLUGIN.filter(lambda plugin: plugin["type"] != "weir-cni"), min_size=1, max_size=4),
)


@given(conflist=_CONFLIST)
def test_goes_last_keeps_the_rest_and_comes_out_again(conflist: dict) -> None:
    text = json.dumps(conflist).encode()
    added = with_entry(text)
    assert json.loads(added) == {**conflist, "plugins": [*conflist["plugins"], {"type": "weir-cni"}]}
    assert with_entry(added) is added
    assert json.loads(without_entry(added)) == conflist
    assert without_entry(text) is text


@pytest.mark.parametrize(
    "text", [b"", b"{", b"[]", b"{}", b'{"plugins": 1}', b'{"plugins": []}', b'{"type": "bridge"}', b"\xff"]
)
def test_what_is_no_list_is_refused(text: bytes) -> None:
    for edit in (with_entry, without_entry):
        with pytest.raises(ConflistError):
            edit(text)
