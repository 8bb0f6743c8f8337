"""Golden files for every option; WEIR_GOLDEN=write makes them anew, for a person to review."""

import os
from pathlib import Path

import msgspec
import pytest

from golden.ruleset_cases import CASES
from weir_sidecar.contract.config import Capture, Exclude, Marks, PortRange, SidecarConfig, Startup
from weir_sidecar.netfilter.features import Features
from weir_sidecar.netfilter.literals import RulesetError
from weir_sidecar.netfilter.render import loaded_as, render, render_removal

GOLDEN = Path(__file__).parents[2] / "golden" / "ruleset"


@pytest.mark.parametrize("name", CASES)
def test_golden(name: str) -> None:
    text = render(*CASES[name])
    path = GOLDEN / f"{name}.nft"
    if os.environ.get("WEIR_GOLDEN") == "write":
        path.write_text(text)
    assert path.read_text() == text


def test_every_golden_file_has_its_case() -> None:
    assert {path.stem for path in GOLDEN.iterdir()} == set(CASES)


def test_options_that_the_kernel_must_know_render_differently() -> None:
    # What to do with UDP that it captured is for the sidecar to know.
    alike = {"quic-allow", "udp-deny"}
    default = render(*CASES["default"])
    assert {name for name, case in CASES.items() if render(*case) == default} == {"default", *alike}
    others = [render(*case) for name, case in CASES.items() if name not in alike]
    assert len(set(others)) == len(others)
    assert len({loaded_as(text) for text in others}) == len(others)


def test_failing_open_starts_open_without_a_rule_for_it() -> None:
    config = SidecarConfig()
    assert render(msgspec.structs.replace(config, startup=Startup.OPEN), Features()) == render(config, Features())


def test_only_what_old_nft_knows() -> None:
    for case in CASES.values():
        assert "destroy" not in render(*case)


def test_equal_meanings_render_alike() -> None:
    def text(exclude: Exclude) -> str:
        return render(SidecarConfig(capture=Capture(exclude=exclude)), Features())

    assert text(Exclude(ports=(PortRange(5, 9), PortRange(1, 4), PortRange(3, 6)))) == text(
        Exclude(ports=(PortRange(1, 9),)),
    )
    assert text(Exclude(cidrs=("10.1.2.3/8", "10.0.0.0/9"))) == text(Exclude(cidrs=("10.0.0.0/8",)))


def test_removal_names_only_what_is_ours() -> None:
    for line in render_removal(Features()).splitlines():
        assert line.endswith(" weir")


@pytest.mark.parametrize(
    ("exclude", "named"),
    [
        (Exclude(cidrs=("10.0.0.0/33",)), "10.0.0.0/33"),
        (Exclude(cidrs=("10.0.0.1 } accept",)), "accept"),
        (Exclude(interfaces=('eth0" accept',)), "eth0"),
        (Exclude(interfaces=("",)), "interface"),
        (Exclude(interfaces=("abcdefghijklmnop",)), "abcdefghijklmnop"),
        (Exclude(interfaces=("eth*0",)), "eth*0"),
        (Exclude(interfaces=("eth0\n",)), "eth0"),
    ],
)
def test_what_no_rule_can_say(exclude: Exclude, named: str) -> None:
    with pytest.raises(RulesetError) as caught:
        render(SidecarConfig(capture=Capture(exclude=exclude)), Features())
    assert named in str(caught.value)


@pytest.mark.parametrize(
    "marks",
    [Marks(mark=1, mask=1), Marks(mark=3, mask=3), Marks(mark=4, mask=3), Marks(mark=0, mask=3), Marks(mark=1, mask=7)],
)
def test_marks_need_two_bits(marks: Marks) -> None:
    with pytest.raises(RulesetError, match="two bits"):
        render(SidecarConfig(marks=marks), Features())


def test_a_text_is_known_again_only_as_itself() -> None:
    config = SidecarConfig()
    other = msgspec.structs.replace(config, capture=Capture(other_protocols=False))
    assert loaded_as(render(config, Features())) == loaded_as(render(config, Features()))
    assert loaded_as(render(config, Features())) != loaded_as(render(other, Features()))
