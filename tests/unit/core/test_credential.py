"""What is beside a Secret's key is read strictly, and a credential goes only where it says."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weir_sidecar.contract.http import Credential
from weir_sidecar.contract.request import RequestError
from weir_sidecar.core.credential import Limits, hosts_of, may_be_sent, value_of, with_secret
from weir_sidecar.core.http_policy import Edits

SYSTEM = frozenset((b"system",))
LIMITS = Limits(("api.test", "*.eu.test"), frozenset((b"private",)))


@pytest.mark.parametrize(
    ("content", "hosts"),
    [
        (b"", ()),
        (b"api.test", ("api.test",)),
        (b"API.test.\n *.eu.test, b.test\r\n", ("api.test", "*.eu.test", "b.test")),
        (b"*", None),
        (b"api.test *", None),
        (b"*.*", None),
        (b"a.*.test", None),
        (b"https://api.test", None),
        (b"api.test:443", None),
        (b"a..test", None),
        (b"\xc3\xa4.test", None),
        (b"# ours", None),
    ],
)
def test_hosts_are_names_and_what_is_below_them(content, hosts):
    assert hosts_of(content) == hosts


@given(st.binary(max_size=60))
def test_whatever_is_read_never_stands_for_every_host(content):
    assert "*" not in (hosts_of(content) or ())


@pytest.mark.parametrize(
    ("content", "value"),
    [
        (b"s3cret\n", b"s3cret"),
        (b"a b\r\n", b"a b"),
        (b"", None),
        (b"a\nb", None),
        (b"a\0", None),
        (b"x" * 16385, None),
    ],
)
def test_a_secret_is_one_line(content, value):
    assert value_of(content) == value


@pytest.mark.parametrize(
    ("host", "anchor", "refused"),
    [
        ("api.test", b"system", None),
        ("api.test", b"private", None),
        ("x.y.eu.test", b"system", None),
        ("eu.test", b"system", RequestError.CREDENTIAL_HOST_NOT_NAMED),
        ("evil.test", b"system", RequestError.CREDENTIAL_HOST_NOT_NAMED),
        ("api.test.evil.test", b"private", RequestError.CREDENTIAL_HOST_NOT_NAMED),
        ("api.test", b"of a policy", RequestError.CREDENTIAL_ROOT_NOT_NAMED),
        ("api.test", None, RequestError.CREDENTIAL_ROOT_NOT_NAMED),
    ],
)
def test_the_owner_says_where_it_goes_and_who_vouches(host, anchor, refused):
    assert may_be_sent(LIMITS, host, anchor, SYSTEM) is refused


def test_where_no_host_is_named_none_gets_it():
    assert may_be_sent(Limits(()), "api.test", b"system", SYSTEM) is RequestError.CREDENTIAL_HOST_NOT_NAMED


def test_a_credential_takes_the_place_of_what_a_rule_sets():
    edits = Edits(frozenset((b"authorization", b"x")), ((b"authorization", b"of the rule"), (b"x", b"1")))
    credential = Credential("Authorization", "/s", "Bearer {}")
    assert with_secret((), edits, credential, b"s3cret") == Edits(
        frozenset((b"authorization", b"x")), ((b"x", b"1"), (b"authorization", b"Bearer s3cret"))
    )
