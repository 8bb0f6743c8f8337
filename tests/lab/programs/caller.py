"""One HTTPS request each PAUSE seconds, each on a connection of its own; one JSON line for each, with the time it began.

usage: HOST[,HOST…] ROOTS PAUSE COUNT LINGER. Each host is called by a thread of its own. ROOTS is a file, or - for what the
system has. COUNT 0: without end. On SIGTERM it goes on for LINGER seconds, and says at its end that this was its end.
"""

import http.client
import json
import signal
import ssl
import sys
import threading
import time

hosts, roots, pause, count, linger = sys.argv[1].split(","), sys.argv[2], *map(float, sys.argv[3:6])
context = ssl.create_default_context(cafile=None if roots == "-" else roots)
context.verify_flags &= ~ssl.VERIFY_X509_STRICT  # many clusters' own CAs have no key usage
ending = threading.Event()
told = threading.Lock()


def tell(what) -> None:
    with told:
        print(json.dumps(what), flush=True)


def call(host):
    connection = http.client.HTTPSConnection(host, 443, timeout=20, context=context)
    try:
        connection.connect()
        issuer = dict(part[0] for part in connection.sock.getpeercert()["issuer"]).get("organizationName", "")
        connection.request("GET", "/")
        body = connection.getresponse().read().decode().strip()
        return {"ok": body == "hello from origin", "weir": issuer == "Weir"}
    except Exception as error:
        return {"ok": False, "error": f"{type(error).__name__}: {str(error)[:160]}"}
    finally:
        connection.close()


def calls(host) -> None:
    number = 0
    while (number < count or not count) and not ending.is_set():
        began, number = time.time(), number + 1
        outcome = call(host)
        tell({"at": began, "ms": round((time.time() - began) * 1000, 1), "host": host, **outcome})
        time.sleep(pause)


def asked_to_end(*_) -> None:
    tell({"asked_to_end": time.time()})
    threading.Timer(linger, ending.set).start()


signal.signal(signal.SIGTERM, asked_to_end)
threads = [threading.Thread(target=calls, args=(host,)) for host in hosts]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
tell({"ended": time.time()})
