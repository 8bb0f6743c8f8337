"""What `weir doctor` says of what it finds."""

from weir_cli.pod import probes


def test_versions_are_compared_as_numbers() -> None:
    assert not probes.python((3, 9, 20)).present
    assert probes.python((3, 12, 0)).present
    assert probes.nft_version("nftables v1.0.10 (Old Doc Yak)").present
    assert not probes.nft_version("nftables v0.9.8 (E.D.S.)").present
    assert not probes.nft_version("").present


def test_root_is_a_uid_and_capabilities() -> None:
    every = (1 << 41) - 1
    assert probes.root(0, every).present
    assert "UID 1000" in probes.root(1000, every).found
    lacking = probes.root(0, every & ~(1 << 12))
    assert not lacking.present
    assert "NET_ADMIN" in str(lacking)
    assert str(lacking).startswith("MISSING")


def test_a_missing_program_is_told_with_its_package() -> None:
    ip, nft = probes.programs({"ip": "/sbin/ip"}.get)
    assert ip.present
    assert str(nft) == "MISSING program nft; on Debian: apt install nftables"
