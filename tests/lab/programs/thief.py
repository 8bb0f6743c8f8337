"""Becomes the proxy's user, as an image with that USER would be, and asks for the sockets of the pod's sidecar: `thief`.

Prints what it was given for each request: a number of sockets, or the error.
"""

import errno
import os

from weir_sidecar.contract import handover
from weir_sidecar.edge import handed_over

PROXY = 15801
KEY = bytes(handover.KEY_BYTES)
WANTED = (
    handover.Claim(KEY),
    handover.Listeners(),
    handover.Tap(),
    handover.Unreachable(),
    handover.Reply("192.0.2.7", 53),
)

os.setresgid(PROXY, PROXY, PROXY)
os.setresuid(PROXY, PROXY, PROXY)
for request in WANTED:
    try:
        given = str(len(handed_over._ask(request, KEY, 10)))
    except OSError as error:
        given = errno.errorcode.get(error.errno or 0, str(error))
    print(type(request).__name__, given, flush=True)
