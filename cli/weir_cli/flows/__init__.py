"""Records of flows and requests, for people: found, filtered, shown as a table or on a full screen, exported.

`source` and `live` do I/O. The rest is pure: records and keys in, text and frozen values out.
"""
