"""HAR 1.2 as a JSON schema, written down from http://www.softwareishard.com/blog/har-12-spec/.

Every object of the format allows `comment`, and names that begin with an underscore; no other name.
"""

from typing import Any

type Schema = dict[str, Any]

TEXT: Schema = {"type": "string"}
COUNT: Schema = {"type": "integer", "minimum": -1}
MILLISECONDS: Schema = {"type": "number", "minimum": 0}
OPTIONAL_MILLISECONDS: Schema = {"type": "number", "anyOf": [{"const": -1}, {"minimum": 0}]}
DATE: Schema = {"type": "string", "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$"}


def _object(needed: Schema, optional: Schema | None = None) -> Schema:
    return {
        "type": "object",
        "properties": {**needed, **(optional or {}), "comment": TEXT},
        "required": list(needed),
        "patternProperties": {"^_": {}},
        "additionalProperties": False,
    }


def _list(of: Schema) -> Schema:
    return {"type": "array", "items": of}


PAIR = _object({"name": TEXT, "value": TEXT})
COOKIE = _object(
    {"name": TEXT, "value": TEXT},
    {"path": TEXT, "domain": TEXT, "expires": DATE, "httpOnly": {"type": "boolean"}, "secure": {"type": "boolean"}},
)
POST_DATA = {
    **_object({"mimeType": TEXT}, {"params": {"type": "array"}, "text": TEXT}),
    "oneOf": [{"required": ["params"]}, {"required": ["text"]}],  # they exclude each other
}
REQUEST = _object(
    {
        "method": TEXT,
        "url": {"type": "string", "pattern": r"^(https?|wss?)://[^/?#\s]+/[!-~]*$"},
        "httpVersion": TEXT,
        "cookies": _list(COOKIE),
        "headers": _list(PAIR),
        "queryString": _list(PAIR),
        "headersSize": COUNT,
        "bodySize": COUNT,
    },
    {"postData": POST_DATA},
)
CONTENT = _object(
    {"size": COUNT, "mimeType": TEXT},
    {"compression": {"type": "integer"}, "text": TEXT, "encoding": {"const": "base64"}},
)
RESPONSE = _object({
    "status": {"type": "integer", "anyOf": [{"const": 0}, {"minimum": 100, "maximum": 999}]},
    "statusText": TEXT,
    "httpVersion": TEXT,
    "cookies": _list(COOKIE),
    "headers": _list(PAIR),
    "content": CONTENT,
    "redirectURL": TEXT,
    "headersSize": COUNT,
    "bodySize": COUNT,
})  # fmt: skip
TIMINGS = _object(
    {"send": MILLISECONDS, "wait": MILLISECONDS, "receive": MILLISECONDS},
    dict.fromkeys(("blocked", "dns", "connect", "ssl"), OPTIONAL_MILLISECONDS),
)
ENTRY = _object(
    {
        "startedDateTime": DATE,
        "time": MILLISECONDS,
        "request": REQUEST,
        "response": RESPONSE,
        "cache": {"const": {}},
        "timings": TIMINGS,
    },
    {"pageref": TEXT, "serverIPAddress": TEXT, "connection": TEXT},
)
LOG = _object(
    {"version": {"const": "1.2"}, "creator": _object({"name": TEXT, "version": TEXT}), "entries": _list(ENTRY)},
    {"browser": {"type": "object"}, "pages": {"const": []}},
)
HAR: Schema = {"type": "object", "properties": {"log": LOG}, "required": ["log"], "additionalProperties": False}
