"""The variables that lead runtimes to the CA."""

from weir_cli.pod import trust_env
from weir_operator.compile import Injection
from weir_operator.injection.variables import TrustFiles

FILES = TrustFiles("/t/bundle", "/t/ca", "/t/store")


def test_programs_that_replace_their_roots_get_the_bundle_and_those_that_add_get_the_ca() -> None:
    added = trust_env.variables({}, FILES, Injection())
    assert added["SSL_CERT_FILE"] == added["REQUESTS_CA_BUNDLE"] == added["GIT_SSL_CAINFO"] == "/t/bundle"
    assert added["NODE_EXTRA_CA_CERTS"] == "/t/ca"
    assert added["JAVA_TOOL_OPTIONS"] == "-Djavax.net.ssl.trustStore=/t/store"


def test_what_is_set_is_somebodys_wish() -> None:
    environ = {"SSL_CERT_FILE": "/mine", "CURL_CA_BUNDLE": "/etc/ssl/x", "PIP_CERT": ""}
    added = trust_env.variables(environ, FILES, Injection())
    assert "SSL_CERT_FILE" not in added
    assert added["PIP_CERT"] == "/t/bundle"
    assert trust_env.kept(environ, {"/etc/ssl/x"}) == ("SSL_CERT_FILE",)


def test_java_options_are_added_to_and_a_trust_store_of_ones_own_stays() -> None:
    added = trust_env.variables({"JAVA_TOOL_OPTIONS": "-Xmx1g"}, FILES, Injection())
    assert added["JAVA_TOOL_OPTIONS"] == "-Xmx1g -Djavax.net.ssl.trustStore=/t/store"
    own = {"JAVA_TOOL_OPTIONS": "-Djavax.net.ssl.trustStore=/mine"}
    assert "JAVA_TOOL_OPTIONS" not in trust_env.variables(own, FILES, Injection())


def test_a_policy_can_leave_the_environment_or_java_alone() -> None:
    assert list(trust_env.variables({}, FILES, Injection(environment=False))) == ["JAVA_TOOL_OPTIONS"]
    assert "JAVA_TOOL_OPTIONS" not in trust_env.variables({}, FILES, Injection(java=False))


def test_the_shell_text_is_quoted() -> None:
    assert trust_env.shell_text({"A": "x y"}) == "export A='x y'\n"
