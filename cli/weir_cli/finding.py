"""What `weir doctor` found, on a machine or in a cluster."""

import msgspec


class Finding(msgspec.Struct, frozen=True):
    """One thing that was looked for. `needed`: without it Weir does not work; else it works less well."""

    what: str
    present: bool
    found: str = ""
    advice: str = ""
    needed: bool = True

    def __str__(self) -> str:
        mark = "ok     " if self.present else "MISSING" if self.needed else "absent "
        details = f": {self.found}" if self.found else ""
        advice = f"; {self.advice}" if self.advice and not self.present else ""
        return f"{mark} {self.what}{details}{advice}"
