"""A person's word on a trust cache, for the control socket of a sidecar that runs and the file of one that does not."""

import msgspec

from weir_sidecar.contract.trust import Word
from weir_sidecar.core.trust_cache import TrustCache, TrustCacheFullError


class TrustChange(msgspec.Struct, frozen=True):
    """A word and what it is about: `host`, `uid` and `ja4` as for `TrustCache.approve`."""

    word: Word
    host: str
    uid: int | None = None
    ja4: str | None = None

    @property
    def subject(self) -> str:
        """What it is about, in words."""
        uid = [] if self.uid is None else [f"uid {self.uid}"]
        ja4 = [] if self.ja4 is None else [f"JA4 {self.ja4}"]
        return f"{self.host} ({', '.join(uid + ja4)})" if uid or ja4 else self.host

    def apply(self, cache: TrustCache, now: float) -> str | None:
        """Say it; None, or why it could not be done. `now` in seconds since the epoch."""
        about = (self.host, self.uid, self.ja4)
        try:
            match self.word:
                case Word.APPROVE:
                    cache.approve(*about, now)
                case Word.PIN:
                    cache.pin(*about, now)
                case Word.FORGET:
                    return None if cache.forget(*about) else f"nothing is known of {self.subject}"
        except TrustCacheFullError as error:
            return str(error)
        return None
