"""As its first act, and as fast as it can for some seconds: TCP and UDP to each ADDRESS. Tells how often.

usage: ADDRESS[,ADDRESS] PORT SECONDS. Nobody has to listen there.
"""

import json
import socket
import sys
import time

addresses, port, seconds = sys.argv[1].split(","), int(sys.argv[2]), float(sys.argv[3])
sent = 0
end = time.monotonic() + seconds
while time.monotonic() < end:
    for address in addresses:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            with socket.socket(family, kind) as sender:
                sender.settimeout(0.2)
                sent += 1
                try:
                    sender.connect((address, port))
                    sender.send(b"any")
                except OSError:  # refused, or nobody answers
                    continue
    time.sleep(0.01)
print(json.dumps({"sent": sent}), flush=True)
