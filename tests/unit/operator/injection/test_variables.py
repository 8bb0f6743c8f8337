"""The table of variables."""

import pytest

from weir_operator.injection.variables import TrustFiles, java_option, names_trust_store, variables

FILES = TrustFiles("/t/bundle", "/t/ca", "/t/store", "/t/certs")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SSL_CERT_FILE", "/t/bundle"),
        ("SSL_CERT_DIR", "/t/certs"),
        ("REQUESTS_CA_BUNDLE", "/t/bundle"),
        ("CURL_CA_BUNDLE", "/t/bundle"),
        ("NODE_EXTRA_CA_CERTS", "/t/ca"),
        ("NODE_USE_SYSTEM_CA", "1"),
        ("DENO_CERT", "/t/bundle"),
        ("GIT_SSL_CAINFO", "/t/bundle"),
        ("PIP_CERT", "/t/bundle"),
        ("AWS_CA_BUNDLE", "/t/bundle"),
        ("CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE", "/t/bundle"),
        ("GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", "/t/bundle"),
        ("CARGO_HTTP_CAINFO", "/t/bundle"),
        ("HTTPLIB2_CA_CERTS", "/t/bundle"),
        ("PERL_LWP_SSL_CA_FILE", "/t/bundle"),
        ("NIX_SSL_CERT_FILE", "/t/bundle"),
        ("BUNDLE_SSL_CA_CERT", "/t/bundle"),
    ],
)
def test_programs_that_replace_their_roots_get_the_bundle_and_those_that_add_get_the_ca(name, value):
    assert variables(FILES)[name] == value


def test_what_is_kept_is_not_named():
    assert "PIP_CERT" not in variables(FILES, {"PIP_CERT"})


def test_a_file_of_ones_own_keeps_the_distributions_directory_beside_it():
    assert "SSL_CERT_DIR" not in variables(FILES, {"SSL_CERT_FILE"})
    assert variables(FILES, {"SSL_CERT_DIR"})["SSL_CERT_FILE"] == "/t/bundle"


def test_without_a_directory_none_is_named():
    assert "SSL_CERT_DIR" not in variables(TrustFiles("/t/bundle", "/t/ca", "/t/store"))


def test_the_option_for_java_names_a_trust_store():
    assert java_option(FILES) == "-Djavax.net.ssl.trustStore=/t/store"
    assert names_trust_store(f"-Xmx1g {java_option(FILES)}")
    assert not names_trust_store("-Xmx1g")
