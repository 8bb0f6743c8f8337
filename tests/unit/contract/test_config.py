import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from weir_sidecar.contract.config import (
    VERSION,
    Action,
    ConfigError,
    FailureMode,
    IDRange,
    Match,
    PortRange,
    Rule,
    Setup,
    SidecarConfig,
    decode,
    encode,
)

FULL = SidecarConfig(
    generation=7,
    workload="shop/Deployment/cart",
    failure_mode=FailureMode.CLOSED,
    setup=Setup.CNI,
    default_action=Action.DENY,
    rules=(
        Rule(
            name="api",
            match=Match(
                hosts=("*.example.com",),
                cidrs=("10.0.0.0/8",),
                ports=(PortRange(443, 443),),
                protocols=("tls",),
                uids=(IDRange(1000, 1999),),
                ja4=("t13d1516h2_8daaf6152771_e5627efa2ab1",),
            ),
            action=Action.INTERCEPT,
        ),
    ),
)


def test_an_empty_object_is_the_default_config():
    assert decode(b"{}") == SidecarConfig()


@pytest.mark.parametrize("config", [SidecarConfig(), FULL])
def test_what_is_written_is_read_back(config):
    assert decode(encode(config)) == config
    assert decode(encode(config).decode()) == config


def test_it_is_one_line_in_camel_case_with_every_field():
    text = encode(FULL)
    assert b"\n" not in text
    document = json.loads(text)
    assert document["version"] == VERSION
    assert document["failureMode"] == "Closed"
    assert document["trust"]["failOpen"]["failureThreshold"] == 2
    assert document["rules"][0]["match"]["uids"] == [{"first": 1000, "last": 1999}]
    left_out = {"logging"}
    assert len(document) == len(msgspec.structs.fields(SidecarConfig)) - len(left_out)
    assert not left_out & set(document)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"", "truncated"),
        (b"nonsense", "malformed"),
        (b"[]", "object"),
        (b'{"failureMod":"Open"}', "failureMod"),
        (b'{"failure_mode":"Open"}', "failure_mode"),
        (b'{"capture":{"dns":{"captured":true}}}', "$.capture.dns"),
        (b'{"failureMode":"open"}', "$.failureMode"),
        (b'{"rules":[{"name":"a","action":"Deny"}]}', "match"),
        (b'{"rules":[{"name":"a","match":{},"action":"Drop"}]}', "$.rules[0].action"),
        (b'{"ports":{"tcp":0}}', "$.ports.tcp"),
        (b'{"ports":{"tcp":65536}}', "$.ports.tcp"),
        (b'{"ports":{"tcp":"80"}}', "$.ports.tcp"),
        (b'{"identity":{"uid":0}}', "$.identity.uid"),
        (b'{"heartbeat":{"interval":-1}}', "$.heartbeat.interval"),
        (b'{"trust":{"failOpen":{"failureThreshold":0}}}', "$.trust.failOpen.failureThreshold"),
        (b'{"version":"weir.dev/sidecar/v9"}', VERSION),
        (b'{"version":"weir.dev/sidecar/v9"}', "weir.dev/sidecar/v9"),
        (b'{"workload":"\xff\xff"}', "utf-8"),
        ('{"workload":"\ud800"}', "utf-8"),
    ],
)
def test_an_error_names_the_place_or_what_was_found(text, said):
    with pytest.raises(ConfigError) as caught:
        decode(text)
    assert str(caught.value).startswith("sidecar config: ")
    assert said in str(caught.value)


def test_ranges_include_both_ends():
    assert [port in PortRange(80, 82) for port in (79, 80, 82, 83)] == [False, True, True, False]
    assert [uid in IDRange(0, 0) for uid in (0, 1)] == [True, False]


def reads_or_is_refused(text):
    """A config that is read can be written, and is read the same again."""
    try:
        config = decode(text)
    except ConfigError:
        return
    assert decode(encode(config)) == config


@given(st.binary(max_size=200) | st.text(st.characters(), max_size=200))
def test_arbitrary_input(text):
    reads_or_is_refused(text)


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner))


def paths(value, path=()):
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from paths(inner, (*path, key))


PATHS = sorted((path for path in paths(json.loads(encode(FULL))) if path), key=repr)


@given(st.sampled_from(PATHS), VALUES)
def test_any_value_in_any_place(path, value):
    document = json.loads(encode(FULL))
    place = document
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    reads_or_is_refused(json.dumps(document))


@pytest.mark.parametrize("opening", [b"[", b'{"rules":', b'{"rules":[{"match":', b'{"capture":'])
def test_depth_is_no_way_in(opening):
    with pytest.raises(ConfigError):
        decode(opening * 100_000)
