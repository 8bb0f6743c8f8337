"""Uploads with trailers by libcurl, whose command line has none: `-m lab.send_trailers URL [CA]` prints the answer's body."""

import ctypes
import sys

_URL, _UPLOAD, _READ, _TRAILER, _CA, _HTTP_VERSION = 10002, 46, 20012, 20283, 10065, 84
"""CURLOPT_URL and so on (curl/curl.h)."""
_HTTP11 = 2
_BODY = [b"one", b"two", b"three"]

_ReadCall = ctypes.CFUNCTYPE(ctypes.c_size_t, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_void_p)
_TrailerCall = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_void_p), ctypes.c_void_p)


def main() -> int:
    """Send a body in chunks and two trailers; returns CURLcode."""
    url, *authorities = sys.argv[1:]
    curl = ctypes.CDLL("libcurl.so.4")
    curl.curl_easy_init.restype = curl.curl_slist_append.restype = ctypes.c_void_p
    curl.curl_slist_append.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
    curl.curl_easy_setopt.argtypes = [ctypes.c_void_p, ctypes.c_int]
    curl.curl_easy_perform.argtypes = [ctypes.c_void_p]
    parts = list(_BODY)

    @_ReadCall
    def read(buffer: int, size: int, count: int, _: object) -> int:
        part = parts.pop(0) if parts else b""
        assert len(part) <= size * count
        ctypes.memmove(buffer, part, len(part))
        return len(part)

    @_TrailerCall
    def trailers(found, _: object) -> int:
        for field in (b"X-Sum: 11", b"X-Why: because"):
            found[0] = curl.curl_slist_append(found[0], field)
        return 0

    easy = curl.curl_easy_init()
    options = {_URL: ctypes.c_char_p(url.encode()), _HTTP_VERSION: ctypes.c_long(_HTTP11), _UPLOAD: ctypes.c_long(1)}
    options |= {_READ: read, _TRAILER: trailers}
    if authorities:
        options[_CA] = ctypes.c_char_p(authorities[0].encode())
    for option, value in options.items():
        assert curl.curl_easy_setopt(easy, option, value) == 0
    return curl.curl_easy_perform(easy)


if __name__ == "__main__":
    sys.exit(main())
