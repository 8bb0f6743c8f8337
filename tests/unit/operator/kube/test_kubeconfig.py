"""Kubeconfigs: what is taken from them, and what is refused by name."""

from base64 import b64encode

import pytest
import yaml

from weir_operator.kube.kubeconfig import Access, KubeconfigError, find_access, in_cluster, read_kubeconfig

CA, CERTIFICATE, KEY = b"the CA\n", b"a certificate\n", b"a key\n"


def data(content):
    return b64encode(content).decode()


def config(tmp_path, cluster=None, user=None, **changed):
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "preferences": {},
        "current-context": "here",
        "contexts": [{"name": "other", "context": {}}, {"name": "here", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": "https://api.example:6443/", **(cluster or {})}}],
        "users": [{"name": "u", "user": user or {}}],
        **changed,
    }
    path = tmp_path / "config"
    path.write_text(yaml.safe_dump(document))
    return path


def test_data_in_place(tmp_path):
    path = config(
        tmp_path,
        {"certificate-authority-data": data(CA), "tls-server-name": "kubernetes"},
        {"client-certificate-data": data(CERTIFICATE), "client-key-data": data(KEY)},
    )
    assert read_kubeconfig(path) == Access("https://api.example:6443", CA, "kubernetes", CERTIFICATE, KEY)


def test_files_are_relative_to_the_kubeconfig(tmp_path):
    for name, content in (("ca", CA), ("crt", CERTIFICATE), ("key", KEY)):
        (tmp_path / name).write_bytes(content)
    user = {"client-certificate": "crt", "client-key": str(tmp_path / "key"), "tokenFile": "t", "token": "old"}
    access = read_kubeconfig(config(tmp_path, {"certificate-authority": "ca"}, user))
    assert (access.authorities, access.certificate, access.key) == (CA, CERTIFICATE, KEY)
    assert (access.token, access.token_file) == (None, tmp_path / "t")


def test_a_token(tmp_path):
    assert read_kubeconfig(config(tmp_path, user={"token": "t"})).token == "t"
    assert read_kubeconfig(config(tmp_path, users=None)) == Access("https://api.example:6443")


def test_secrets_are_not_printed():
    assert repr(Access("https://a", token="secret", key=b"secret")) == "Access(https://a)"


@pytest.mark.parametrize("server", ["http://127.0.0.1:8001", "http://localhost:8001", "http://[::1]:8001"])
def test_plain_http_stays_on_this_machine(tmp_path, server):
    assert read_kubeconfig(config(tmp_path, {"server": server})).server == server


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"cluster": {"server": "http://api.example"}}, "found 'http://api.example'; allowed: an https URL"),
        ({"cluster": {"server": ""}}, "found ''; allowed: an https URL"),
        ({"cluster": {"insecure-skip-tls-verify": True}}, "insecure-skip-tls-verify is not allowed"),
        ({"cluster": {"proxy-url": "http://p"}}, "proxy-url is not supported"),
        ({"cluster": {"certificate-authority-data": "?"}}, "not base64"),
        ({"cluster": {"certificate-authority": "absent"}}, "absent: cannot be read: No such file"),
        ({"user": {"exec": {"command": "aws"}}}, "users: found exec, which is not supported; allowed: a client cert"),
        ({"user": {"auth-provider": {"name": "gcp"}}}, "found auth-provider"),
        ({"user": {"username": "a", "password": "b"}}, "found username"),
        ({"user": {"client-certificate-data": data(CERTIFICATE)}}, "found one of client-certificate and client-key"),
        ({"current-context": "gone"}, "current-context: found 'gone', which is no context"),
        ({"clusters": []}, "found no cluster 'c', which context 'here' names"),
        ({"clusters": "c"}, "not a kubeconfig: Expected `array"),
    ],
)
def test_what_is_refused(tmp_path, changed, said):
    with pytest.raises(KubeconfigError) as refused:
        read_kubeconfig(config(tmp_path, **changed))
    assert said in str(refused.value)
    assert str(tmp_path) in str(refused.value)


@pytest.mark.parametrize("text", ["", "[", "a", "- b"])
def test_what_is_no_kubeconfig(tmp_path, text):
    path = tmp_path / "config"
    path.write_text(text)
    with pytest.raises(KubeconfigError, match="config: "):
        read_kubeconfig(path)


ENVIRON = {"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "6443"}


def test_in_a_pod(tmp_path):
    (tmp_path / "ca.crt").write_bytes(CA)
    with pytest.raises(KubeconfigError, match="token: cannot be read"):
        in_cluster(ENVIRON, tmp_path)
    (tmp_path / "token").write_text("t")
    assert in_cluster(ENVIRON, tmp_path) == Access("https://[fd00::1]:6443", CA, token_file=tmp_path / "token")
    assert in_cluster({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, tmp_path).server == "https://10.0.0.1:443"


def test_where_it_is_looked_for(tmp_path):
    path = config(tmp_path)
    assert find_access(ENVIRON, str(path)).server == "https://api.example:6443"
    assert find_access({"KUBECONFIG": str(path)}).server == "https://api.example:6443"
    (tmp_path / ".kube").mkdir()
    path.rename(tmp_path / ".kube/config")
    assert find_access({"HOME": str(tmp_path)}).server == "https://api.example:6443"
    with pytest.raises(KubeconfigError, match="serviceaccount"):
        find_access(ENVIRON | {"KUBECONFIG": str(path)})
    with pytest.raises(KubeconfigError, match="KUBECONFIG: found several files, a:b; allowed: one"):
        find_access({"KUBECONFIG": "a:b"})
