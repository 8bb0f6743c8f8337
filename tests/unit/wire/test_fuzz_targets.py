"""The fuzz targets take their own seeds, and small changes to them, so that the nightly run starts from a sound state."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuzz.targets import TARGETS, SlowInputError, seeds, within_limit


@pytest.mark.parametrize("name", TARGETS)
def test_a_target_has_seeds_and_takes_them(name):
    taken = [TARGETS[name](seed) for seed in seeds(name)]
    assert taken


@pytest.mark.parametrize("name", TARGETS)
@given(data=st.data())
def test_a_target_takes_changed_seeds(name, data):
    seed = bytearray(data.draw(st.sampled_from(list(seeds(name)))))
    at = data.draw(st.integers(0, len(seed)))
    seed[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    TARGETS[name](bytes(seed))


@pytest.mark.parametrize(
    ("instants", "told"),
    [([0, 0.05], False), ([0, 0.06, 1, 1.01], False), ([0, 0.06, 1, 1.07, 2, 2.08], True)],
)
def test_an_input_is_slow_when_it_is_slow_three_times(instants, told):
    timed = within_limit(lambda data: None, clock=iter(instants).__next__)
    if told:
        with pytest.raises(SlowInputError, match=r"3 bytes took 0\.060 s"):
            timed(b"abc")
    else:
        timed(b"abc")
