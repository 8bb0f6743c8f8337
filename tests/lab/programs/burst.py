"""As its first act, and as fast as it can for some seconds: TCP and UDP to each ADDRESS. Tells how many got through.

usage: ADDRESS[,ADDRESS] PORT SECONDS. Nobody has to listen there.
"""

import json
import socket
import sys
import time

addresses, port, seconds = sys.argv[1].split(","), int(sys.argv[2]), float(sys.argv[3])
outcomes = {"sent": 0, "answered": 0}
end = time.monotonic() + seconds
while time.monotonic() < end:
    for address in addresses:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            with socket.socket(family, kind) as sender:
                sender.settimeout(0.2)
                outcomes["sent"] += 1
                try:
                    sender.connect((address, port))
                    sender.send(b"any")
                    outcomes["answered"] += kind == socket.SOCK_STREAM
                except OSError:
                    pass
    time.sleep(0.01)
print(json.dumps(outcomes), flush=True)
