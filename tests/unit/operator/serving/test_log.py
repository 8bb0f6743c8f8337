"""The log's lines."""

import json
import logging
import sys

from weir_operator.serving.log import JSONLines, facts


def line(**more):
    record = logging.LogRecord("weir", logging.WARNING, "f", 1, "%s was\nrefused", ("it",), None)
    vars(record).update(more)
    text = JSONLines().format(record)
    assert "\n" not in text
    return json.loads(text)


def test_facts_are_fields():
    told = line(**facts(pod="a", cause="other_pod"))
    assert (told["level"], told["message"], told["pod"]) == ("warning", "it was\nrefused", "a")


def test_what_is_no_json_is_text():
    assert line(**facts(problem=ValueError("x")))["problem"] == "x"


def test_a_traceback_is_a_field():
    try:
        raise ValueError("x")
    except ValueError:
        assert line(exc_info=sys.exc_info())["error"].endswith("ValueError: x")
