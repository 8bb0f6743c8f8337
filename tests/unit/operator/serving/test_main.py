"""The command lines of the control plane."""

import subprocess
import sys

import msgspec
import pytest

from weir_operator import __main__ as program
from weir_operator.serving.server import read_settings


@pytest.mark.parametrize("command", program.COMMANDS)
def test_each_command_says_what_it_takes(command, capsys):
    with pytest.raises(SystemExit, match="0"):
        program.main([command, "--help"])
    assert "--health-port" in capsys.readouterr().out


def test_no_command_is_told_which_there_are(capsys):
    with pytest.raises(SystemExit, match="2"):
        program.main([])
    assert "COMMAND" in capsys.readouterr().err


def test_serve_does_not_load_what_operate_needs():
    code = (
        "import sys; from weir_operator.__main__ import main\n"
        "try: main(['serve', '--help'])\n"
        "except SystemExit: pass\n"
        "assert 'kopf' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


def test_the_settings_of_the_chart_are_read(tmp_path):
    file = tmp_path / "settings.json"
    file.write_text('{"pullPolicy":"Always","imagePullSecrets":["a"],"sidecarResources":{"limits":{"memory":"1Gi"}}}')
    settings = read_settings("weir:1", file)
    assert (settings.image, settings.pull_policy, settings.image_pull_secrets) == ("weir:1", "Always", ("a",))
    assert settings.sidecar_resources == {"limits": {"memory": "1Gi"}}


def test_an_unknown_setting_is_an_error_that_names_it(tmp_path):
    file = tmp_path / "settings.json"
    file.write_text('{"pulPolicy":"Always"}')
    with pytest.raises(msgspec.ValidationError, match="pulPolicy"):
        read_settings("weir:1", file)


def test_without_a_kubeconfig_that_can_be_read_it_says_so(tmp_path, caplog):
    assert program.main(["serve", "--image=weir:1", f"--kubeconfig={tmp_path}/none"]) == 2
