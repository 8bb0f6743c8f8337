"""Parsers: bytes in, facts out. No I/O, no clock; the only errors are the declared ones; bounded in time and size."""
