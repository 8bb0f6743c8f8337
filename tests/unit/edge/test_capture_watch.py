import asyncio

import pytest

from weir_sidecar.contract.capture import CaptureReason, CaptureRecord, encode_capture
from weir_sidecar.edge.capture_watch import CaptureWatch


def told(answers: list[bool], *, captured: bool) -> list[CaptureReason]:
    """What is told while the rules answer so, one look after the other."""
    told: list[CaptureReason] = []

    async def main() -> None:
        asked, done = iter(answers), asyncio.Event()

        def ask() -> bool:
            answer = next(asked, None)
            if answer is None:
                done.set()
                return watch.captured
            return answer

        watch = CaptureWatch(asyncio.get_running_loop(), ask, told.append, captured=captured, interval=0.001)
        await done.wait()
        watch.close()

    asyncio.run(main())
    return told


@pytest.mark.parametrize(
    ("captured", "answers", "reasons"),
    [
        (True, [True, True], []),
        (True, [False, True, False, True], []),
        (True, [False, False, False], [CaptureReason.RULES_LOST]),
        (True, [False, False, True], [CaptureReason.RULES_LOST, CaptureReason.REPAIRED]),
        (False, [False, False, False], []),
        (False, [False, True, True], [CaptureReason.REPAIRED]),
    ],
)
def test_changes_are_told_and_one_silence_is_none(
    *, captured: bool, answers: list[bool], reasons: list[CaptureReason]
) -> None:
    assert told(answers, captured=captured) == reasons


def test_a_record_is_told_from_others_by_its_first_field() -> None:
    record = CaptureRecord("2027-01-01T12:00:00.000Z", captured=False, reason=CaptureReason.PLUGIN_MISSED)
    line = b'{"record":"capture","time":"2027-01-01T12:00:00.000Z","captured":false,"reason":"plugin_missed"}\n'
    assert encode_capture(record) == line
