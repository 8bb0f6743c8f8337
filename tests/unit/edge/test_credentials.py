"""Secrets as the kubelet mounts them: behind links that are swapped, with their owner's word beside them."""

import os
from hashlib import sha256

import pytest

from lab.http1 import RelayBench
from lab.pki import Authority
from weir_sidecar.contract.config import Action, Match, Rule, SidecarConfig
from weir_sidecar.contract.http import Credential, RequestRule
from weir_sidecar.contract.request import RequestError
from weir_sidecar.edge.credentials import Credentials

SYSTEM = Authority.root("A public CA").issued
PRIVATE = Authority.root("The owner's CA").issued
FOREIGN = Authority.root("Another's CA").issued


class Mounted:
    """A volume of the kubelet's: NAME leads to ..data/NAME, and ..data to a directory of the moment's."""

    def __init__(self, root):
        self.root = root
        self.file = root / "api" / "token"
        self._moment = 0
        (root / "api").symlink_to("..data/api")

    def swap(self, **keys):
        """What is there from now on; names with _ for the dot."""
        self._moment += 1
        moment = self.root / f"..{self._moment}"
        (moment / "api").mkdir(parents=True)
        for name, content in keys.items():
            data = content if isinstance(content, bytes) else content.encode()
            (moment / "api" / name.replace("_", ".")).write_bytes(data)
        link = self.root / "..data_tmp"
        link.symlink_to(moment.name)
        link.rename(self.root / "..data")

    @property
    def credential(self):
        return Credential("authorization", str(self.file), "Bearer {}", limited=True)


@pytest.fixture
def mounted(tmp_path):
    made = Mounted(tmp_path)
    made.swap(token="s3cret\n", token_hosts="a.test", token_ca=PRIVATE.pem)
    return made


class Server:
    """Whoever the upstream proved to be."""

    def __init__(self, root):
        self._root = root
        self.asked = 0

    def anchor(self):
        self.asked += 1
        return sha256(self._root.der).digest()


def bench(mounted, root=SYSTEM, host="a.test"):
    rule = Rule(
        "api", Match(hosts=(host,)), Action.INTERCEPT, http=(RequestRule("key", credential=mounted.credential),)
    )
    relay = RelayBench(SidecarConfig(rules=(rule,)), rule="api")
    relay.surroundings.context.credentials = Credentials(SYSTEM.pem)
    relay.requests.server = Server(root)
    return relay


GET = b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


@pytest.mark.parametrize("root", [SYSTEM, PRIVATE])
def test_it_goes_to_a_named_host_that_a_named_root_vouches_for(mounted, root):
    relay = bench(mounted, root)
    assert b"authorization: Bearer s3cret\r\n" in relay.client(GET)
    relay.upstream(OK)
    relay.client(GET)
    assert relay.requests.server.asked == 1


def refused(relay, status):
    assert relay.client(GET) == b""
    assert relay.to_client().startswith(b"HTTP/1.1 %d " % status)
    (record,) = relay.records
    assert "s3cret" not in repr(record)
    return record.error


def test_a_root_that_only_a_policy_names_vouches_for_nobody(mounted):
    assert refused(bench(mounted, FOREIGN), 403) is RequestError.CREDENTIAL_ROOT_NOT_NAMED


@pytest.mark.parametrize("keys", [{}, {"token_hosts": "b.test *.a.test"}, {"token_hosts": ""}])
def test_a_host_that_the_owner_does_not_name_gets_nothing(mounted, keys):
    mounted.swap(token="s3cret", **keys)
    assert refused(bench(mounted), 403) is RequestError.CREDENTIAL_HOST_NOT_NAMED


@pytest.mark.parametrize(
    "keys",
    [
        {"token": "two\nlines", "token_hosts": "a.test"},
        {"token": "s3cret", "token_hosts": "*"},
        {"token": "s3cret", "token_hosts": "a.test", "token_ca": "no certificate"},
    ],
)
def test_what_cannot_be_read_strictly_counts_for_nothing(mounted, keys):
    mounted.swap(**keys)
    assert refused(bench(mounted), 502) is RequestError.CREDENTIAL_UNREADABLE


def test_a_secret_that_is_not_there_is_missing(mounted, tmp_path):
    mounted.swap(other="x")
    assert refused(bench(mounted), 502) is RequestError.CREDENTIAL_MISSING
    nowhere = Credential("authorization", str(tmp_path / "none" / "token"), limited=True)
    assert Credentials().secret(nowhere) is RequestError.CREDENTIAL_MISSING


def test_a_change_counts_from_the_next_request_on(mounted):
    relay = bench(mounted)
    assert b"Bearer s3cret" in relay.client(GET)
    relay.upstream(OK)
    mounted.swap(token="another", token_hosts="a.test")
    assert b"Bearer another" in relay.client(GET)
    relay.upstream(OK)
    mounted.swap(token="another", token_hosts="b.test")
    assert relay.client(GET) == b""
    mounted.swap()
    assert relay.client(GET) == b""
    assert [one.error for one in relay.records[2:]] == [
        RequestError.CREDENTIAL_HOST_NOT_NAMED,
        RequestError.CREDENTIAL_MISSING,
    ]


def test_a_file_that_is_the_same_is_not_read_again(mounted):
    credentials = Credentials()
    first = credentials.secret(mounted.credential)
    assert credentials.secret(mounted.credential) is first
    os.utime(mounted.file, ns=(1, 1))
    assert credentials.secret(mounted.credential) is not first


def test_what_is_remembered_is_bounded(tmp_path):
    credentials = Credentials()
    for number in range(600):
        file = tmp_path / str(number)
        file.write_text(str(number))
        credentials.secret(Credential("a", str(file)))
    assert len(credentials._held) <= 256
