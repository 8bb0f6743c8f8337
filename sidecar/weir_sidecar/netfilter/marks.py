"""The mark bits as nft says them: two bits, shared by packet and connection marks."""

import msgspec

from weir_sidecar.contract import config
from weir_sidecar.netfilter.literals import RulesetError


class Marks(msgspec.Struct, frozen=True):
    """The mark bits as nft expressions. Other bits of a mark belong to others and are kept."""

    mask: int
    captured: int
    second: int

    @classmethod
    def of(cls, marks: config.Marks) -> "Marks":
        """The bits of a config. Raises `RulesetError`."""
        mark, mask = marks.mark, marks.mask
        second = mask & ~mark
        if not 0 < mask <= 0xFFFFFFFF or mark & mask != mark or mark.bit_count() != 1 or second.bit_count() != 1:
            raise RulesetError(
                f"marks: mark {mark:#x} with mask {mask:#x}; the mask needs two bits (of 32) and the mark one of them",
            )
        return cls(mask, mark, second)

    def among(self, kind: str, bits: int) -> str:
        """Match: of our bits, exactly these are set. `kind` is meta (the packet) or ct (the connection)."""
        return f"{kind} mark & {self.mask:#010x} == {bits:#010x}"

    def put(self, kind: str, bits: int) -> str:
        """Statement: set our bits to these."""
        kept = f"{kind} mark set {kind} mark & {0xFFFFFFFF ^ self.mask:#010x}"
        return f"{kept} | {bits:#010x}" if bits else kept
