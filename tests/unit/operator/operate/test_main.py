import argparse
from datetime import timedelta

import pytest

from weir_operator.operate.main import Certificates, add_arguments, run
from weir_operator.operate.repair import Mode


def parse(*arguments):
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parser.parse_args(arguments)


def test_defaults_are_those_of_the_chart():
    args = parse()
    assert (args.namespace, args.certificates, args.health_port) == ("weir-system", Certificates.SELF, 8080)
    assert (args.ca_secret, args.serving_secret, args.deployment) == ("weir-ca", "weir-serving", "weir-operator")
    assert args.ca_overlap == timedelta(days=1)
    assert args.excluded_namespaces == {"kube-system"}
    assert (args.cni_repair, args.webhook_repair, args.evict_bare_pods) == (Mode.NONE, Mode.NONE, False)


def test_values():
    args = parse("--certificates=CertManager", "--ca-overlap=1h30m", "--excluded-namespaces=a,b")
    assert args.certificates is Certificates.CERT_MANAGER
    assert args.ca_overlap == timedelta(minutes=90)
    assert args.excluded_namespaces == {"a", "b"}


def test_what_is_not_allowed_is_named(capsys):
    with pytest.raises(SystemExit):
        parse("--ca-overlap=soon")
    assert "found 'soon'; allowed: a duration" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        parse("--certificates=Vault")
    assert "CertManager" in capsys.readouterr().err


def test_without_a_way_to_the_api_server_it_ends_and_says_why(tmp_path, caplog):
    assert run(parse(f"--kubeconfig={tmp_path}/none")) == 2
    assert f"{tmp_path}/none" in caplog.text
