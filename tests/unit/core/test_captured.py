import pytest
from hypothesis import given
from hypothesis import strategies as st

from weir_sidecar.core.captured import Capture, Room, told


@given(
    st.lists(st.binary(max_size=40), max_size=10), st.integers(0, 100), st.integers(0, 100), st.integers(0, 100)
)  # fmt: skip
def test_the_first_bytes_are_kept_as_far_as_there_is_room(pieces, limit, inner, outer):
    pod = Room(outer)
    room = Room(inner, pod)
    capture = Capture(room, limit)
    for piece in pieces:
        capture.add(b"<" + piece + b">", 1, 1 + len(piece))
    whole = b"".join(pieces)
    most = min(limit, inner, outer)
    assert bytes(capture.kept) == whole[:most]
    assert capture.truncated is (len(whole) > most)
    assert (room.left, pod.left) == (inner - len(capture.kept), outer - len(capture.kept))
    capture.release()
    capture.add(b"more", 0, 4)
    assert (room.left, pod.left, bytes(capture.kept)) == (inner, outer, b"")


def test_flows_share_a_room():
    pod = Room(10)
    one, other = Capture(Room(8, pod), 100), Capture(Room(8, pod), 100)
    one.add(b"12345678", 0, 8)
    other.add(b"12345678", 0, 8)
    assert (bytes(other.kept), other.truncated) == (b"12", True)


@pytest.mark.parametrize(
    ("kept", "is_text", "truncated", "content", "base64"),
    [
        (b"h\xc3\xa9", True, False, "hé", False),
        (b"h\xc3", True, True, "h", False),
        (b"h\xc3", True, False, "aMM=", True),
        (b"\xc3h", True, True, "w2g=", True),
        (b"plain", False, False, "cGxhaW4=", True),
        (b"", True, False, "", False),
    ],
)
def test_text_is_told_as_text_and_all_else_in_base64(kept, is_text, truncated, content, base64):
    assert told(kept, is_text=is_text, truncated=truncated) == (content, base64)
