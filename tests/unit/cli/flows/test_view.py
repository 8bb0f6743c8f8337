"""The full screen without a terminal: keys in, pictures out."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab import records
from weir_cli.flows.filters import parse
from weir_cli.flows.log import Log
from weir_cli.flows.picture import News, Style, picture
from weir_cli.flows.view import Key, Mode, Size, View, press, settled
from weir_cli.text import width
from weir_sidecar.contract.flow import Client, Decision
from weir_sidecar.contract.request import Scheme


class Screen:
    """What a user has before them."""

    def __init__(self, *found, columns=100, rows=10, pods=False):
        self.log = Log(most=100)
        self.size = Size(columns, rows)
        self.view = View()
        self.news = News("the test", pods=pods)
        self.come(*found)

    def come(self, *found):
        for one in found:
            self.log.add(records.told(one))

    def press(self, *keys):
        for key in keys:
            self.view = settled(self.view, self.log, self.size)
            self.view = press(self.view, key, self.log, self.size)
        return self

    def type(self, text):
        return self.press("/", Key.CLEAR, *text, Key.ENTER)

    @property
    def picture(self):
        self.view = settled(self.view, self.log, self.size)
        return picture(self.view, self.log, self.size, self.news)

    @property
    def text(self):
        return "\n".join(row.text.rstrip() for row in self.picture.rows)

    @property
    def ids(self):
        """Of the rows of the table, by the number of the flow."""
        return [self.number(row) for row in self.picture.rows[1:-2] if row.text.strip()]

    @property
    def selected(self):
        (row,) = (row for row in self.picture.rows if row.selected)
        return self.number(row)

    @staticmethod
    def number(row):
        return int(row.text.split("3f0a-")[1].split()[0].partition("/")[0], 16)


def flows(*numbers):
    return [records.flow(number) for number in numbers]


def test_the_newest_is_at_the_bottom_and_selected():
    screen = Screen(*flows(*range(1, 21)))
    assert screen.ids == [14, 15, 16, 17, 18, 19, 20]
    assert screen.selected == 20
    screen.come(*flows(21))
    assert screen.ids[-1] == screen.selected == 21


def test_a_row_that_was_chosen_stays_where_it_is_while_others_come():
    screen = Screen(*flows(*range(1, 21))).press(Key.UP, "k")
    assert screen.selected == 18
    shown = screen.ids
    screen.come(*flows(*range(21, 40)))
    assert (screen.ids, screen.selected) == (shown, 18)
    assert "not following" in screen.text
    assert screen.press("f").selected == 39
    assert screen.press("f").press(Key.HOME).selected == 1
    assert screen.ids == list(range(1, 8))
    assert screen.press(Key.END).selected == 39


def test_moving_ends_at_the_ends():
    screen = Screen(*flows(1, 2, 3))
    assert screen.press(*[Key.UP] * 9).selected == 1
    assert screen.press("j").selected == 2
    assert screen.press(*[Key.DOWN] * 9).selected == 3


def test_pages():
    screen = Screen(*flows(*range(1, 31)))
    assert screen.press(Key.PAGE_UP).selected == 23
    assert screen.press("g").selected == 1
    assert screen.press(" ").selected == 8


def test_what_is_forgotten_takes_the_selection_along():
    screen = Screen(*flows(*range(1, 101))).press("g")
    assert screen.selected == 1
    screen.come(*flows(*range(101, 111)))
    assert screen.selected == 11
    assert screen.ids[0] == 11


def test_without_records_keys_do_nothing():
    screen = Screen().press(Key.UP, Key.DOWN, "g", "G", Key.ENTER, Key.PAGE_DOWN)
    assert screen.view.mode is Mode.TABLE
    assert screen.ids == []
    assert "0 records" in screen.text


def test_quitting():
    assert Screen().press("q").view.mode is Mode.OVER
    assert Screen(*flows(1)).press(Key.ENTER, "q").view.mode is Mode.TABLE


def test_a_filter_is_edited_and_applied():
    screen = Screen(records.request(1, 1, status=404), *flows(1, 2), records.request(1, 2, status=200))
    assert screen.type("status:4xx").ids == [1]
    assert "1 of 4 records, filter: status:4xx" in screen.text
    # What it was is there to be changed.
    screen.press("/", Key.BACKSPACE, Key.BACKSPACE, Key.BACKSPACE, *"200")
    assert screen.text.splitlines()[-1] == "filter: status:200"
    assert screen.press(Key.ENTER).ids == [2]
    assert len(screen.type("").ids) == 4


def test_a_filter_that_cannot_be_read_is_explained_and_changes_nothing():
    screen = Screen(*flows(1, 2)).type("port:80").type("foo:bar")
    assert "'foo' is no field" in screen.text
    assert screen.picture.rows[-2].style is Style.COMPLAINT
    assert screen.view.mode is Mode.FILTER
    assert screen.ids == []
    assert "'foo'" not in screen.press(Key.BACKSPACE).text
    screen.press(Key.ESCAPE)
    assert "filter: port:80" in screen.text


def test_editing_keys():
    screen = Screen().press("/", *"acd", Key.LEFT, Key.LEFT, "b", Key.END, "e", Key.HOME, Key.DELETE, Key.RIGHT)
    assert (screen.view.edited, screen.view.cursor) == ("bcde", 1)
    assert screen.picture.cursor == (9, len("filter: b"))
    assert screen.press(Key.CLEAR).view.edited == "cde"
    assert screen.press(Key.UP, "\x07").view.edited == "cde"
    assert screen.press(Key.ESCAPE).picture.cursor is None


def test_the_cursor_stays_on_the_screen():
    screen = Screen(columns=30).press("/", *("x" * 50))
    row, column = screen.picture.cursor
    assert (row, column) == (9, 29)
    assert screen.picture.rows[-1].text == "filter: " + "x" * 21 + " "


def test_the_detail_of_a_request():
    screen = Screen(
        records.request(1, 1, path="/first"), records.request(2, 1, path="/second"), *flows(1), rows=40
    ).press(Key.UP, Key.ENTER)
    text = screen.text
    for words in (
        "GET https://example.com/second",
        "--curl 3f0a-1/2",
        "uid 1000",
        "REQUESTS OF THE FLOW (2)",
        "/first",
    ):
        assert words in text
    assert "2 of 3" in screen.press("p", "n").text
    assert "GET https://example.com/first" in screen.press("p").text
    screen.press(Key.ESCAPE)
    assert screen.view.mode is Mode.TABLE
    assert screen.picture.rows[1].selected


def test_the_detail_of_a_request_in_an_open_flow():
    assert "open: its own record comes" in Screen(records.request(1, 1), rows=40).press(Key.ENTER).text


def test_the_detail_stays_when_others_come_and_scrolls():
    screen = Screen(*flows(1, 2), rows=8).press(Key.ENTER)
    screen.come(*flows(3))
    assert "3f0a-2" in screen.text
    assert "FLOW" in screen.text
    assert "FLOW" not in screen.press(Key.DOWN).text
    assert "ended after" in screen.press(Key.END).text
    bottom = screen.text
    assert screen.press(*["j"] * 5).text == bottom
    assert "FLOW" in screen.press("g").text


def test_what_the_filter_takes_away_closes_its_detail():
    screen = Screen(records.request(1, 1)).type("-uid:1000").press(Key.ENTER)
    assert screen.view.mode is Mode.DETAIL
    screen.come(records.flow(1))
    assert screen.ids == []
    assert screen.view.mode is Mode.TABLE


@pytest.mark.parametrize(
    ("record", "style"),
    [
        (records.flow(), Style.PLAIN),
        (records.flow(decision=Decision.PASSTHROUGH), Style.PASSED),
        (records.flow(decision=Decision.DENY), Style.FAILED),
        (records.flow(error="upstream_reset"), Style.FAILED),
        (records.request(), Style.PLAIN),
        (records.request(status=502), Style.FAILED),
        (records.request(status=None), Style.PLAIN),
    ],
)
def test_what_went_wrong_stands_out(record, style):
    assert Screen(record).picture.rows[1].style is style


def test_an_error_stands_before_the_reason():
    row = Screen(records.flow(error="upstream_reset", rule=None), columns=150).picture.rows[1].text
    assert "intercept    upstream_reset, rule " in row


@pytest.mark.parametrize(
    ("columns", "heads"),
    [
        (170, "POD TIME ID CLIENT PROTO DESTINATION DECISION REASON UP DOWN MS"),
        (80, "TIME PROTO DESTINATION DECISION REASON"),
        (60, "PROTO DESTINATION REASON"),
    ],
)
def test_a_narrow_screen_does_without_some_columns(columns, heads):
    screen = Screen(*flows(1), columns=columns, pods=columns > 100)
    assert screen.picture.rows[0].text.split() == heads.split()


def test_nothing_steers_the_terminal():
    evil = "a\x1b[2J\u202e\nb"
    screen = Screen(
        records.request(1, 1, path=evil, rule=evil, host=evil),
        records.flow(1, host=evil, client=Client(ja4=evil)),
        rows=60,
    )
    for keys in ([], [Key.ENTER], ["p"]):
        for row in screen.press(*keys).picture.rows:
            assert "\x1b" not in row.text
            assert "\u202e" not in row.text
            assert "\n" not in row.text


ANY_KEY = st.sampled_from([*Key, *"jkgGfnpq/ ", "x", "ü", "語", ":", "status:4xx"])
ANY_RECORD = st.one_of(
    st.builds(records.flow, st.integers(1, 5), host=st.sampled_from(["a.example", "例え.テスト", None])),
    st.builds(
        records.request, st.integers(1, 3), st.integers(1, 5), status=st.sampled_from([200, 404, None]),
        path=st.text(max_size=200), scheme=st.sampled_from(Scheme),
    ),
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.one_of(ANY_KEY, ANY_RECORD, st.builds(Size, st.integers(1, 120), st.integers(1, 30))), max_size=40),
    st.booleans(),
)
def test_whatever_happens_the_screen_is_full_and_nothing_is_wider(events, pods):
    screen = Screen(pods=pods)
    screen.log = Log(most=5)
    for event in events:
        if isinstance(event, Size):
            screen.size = event
        elif isinstance(event, str | Key):
            if screen.view.mode is not Mode.OVER:
                screen.press(event)
        else:
            screen.come(event)
        shown = screen.picture
        assert len(shown.rows) == screen.size.rows
        assert {width(row.text) for row in shown.rows} == {screen.size.columns}
        assert sum(row.selected for row in shown.rows) <= 1
        if shown.cursor is not None:
            assert 0 <= shown.cursor[0] < screen.size.rows
            assert 0 <= shown.cursor[1] < screen.size.columns
        if screen.view.mode is Mode.TABLE and screen.log.shown and screen.size.rows > 3:
            assert sum(row.selected for row in shown.rows) == 1


def test_a_filter_given_before_is_in_force():
    screen = Screen(*flows(1, 2))
    wanted = parse("id:3f0a-2")
    screen.log.choose(wanted)
    screen.view = View(filter=wanted)
    assert screen.ids == [2]
