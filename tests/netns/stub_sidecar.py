"""A sidecar with no policy, for tests of the pod: makes a CA, relays every TCP flow, beats, and records one line each."""

import argparse
import datetime as dt
import encodings.idna  # noqa: F401 - what is imported after the drop may not be readable
import json
import os
import signal
import socket
import threading
import time
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

IP_TRANSPARENT, IPV6_TRANSPARENT = 19, 75


def main() -> None:
    parser = argparse.ArgumentParser()
    for option in ("--run-dir", "--state-dir", "--record"):
        parser.add_argument(option, type=Path)
    parser.add_argument("--ready-fd", type=int)
    args = parser.parse_args()
    config = json.loads((args.run_dir / "config.json").read_text())
    if config["workload"] == "broken":
        raise SystemExit("the stub was told to be broken")
    listeners = [listen(family, config["ports"]["tcp"]) for family in (socket.AF_INET, socket.AF_INET6)]
    if not (args.run_dir / "ca.crt").exists():
        make_authority(args.run_dir)
    record = args.record.open("a") if args.record else None
    os.setgroups([])
    os.setresgid(*[config["identity"]["gid"]] * 3)
    os.setresuid(*[config["identity"]["uid"]] * 3)
    (args.state_dir / "memory").touch()

    def reload(*_):
        (args.run_dir / "reloaded").write_text((args.run_dir / "config.json").read_text())

    signal.signal(signal.SIGHUP, reload)
    for listener in listeners:
        threading.Thread(target=serve, args=(listener, record), daemon=True).start()
    if args.ready_fd is not None:
        os.write(args.ready_fd, b"1\n")
        os.close(args.ready_fd)
    beat(config)


def beat(config) -> None:
    senders = [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")]
    sockets = [(socket.socket(family, socket.SOCK_DGRAM), address) for family, address in senders]
    while True:
        for sender, address in sockets:
            sender.sendto(b"", (address, config["ports"]["heartbeat"]))
        time.sleep(config["heartbeat"]["interval"])


def listen(family, port) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.setsockopt(socket.IPPROTO_IPV6, IPV6_TRANSPARENT, 1)
    else:
        listener.setsockopt(socket.IPPROTO_IP, IP_TRANSPARENT, 1)
    listener.bind(("", port))
    listener.listen(64)
    return listener


def serve(listener, record) -> None:
    while True:
        client, _ = listener.accept()
        threading.Thread(target=relay, args=(client, record), daemon=True).start()


def relay(client, record) -> None:
    address, port = client.getsockname()[:2]
    if record:
        record.write(
            json.dumps({"decision": "intercept", "address": address, "port": port}, separators=(",", ":")) + "\n"
        )
        record.flush()
    try:
        upstream = socket.create_connection((address, port), 5)
    except OSError:
        client.close()
        return
    back = threading.Thread(target=pump, args=(upstream, client), daemon=True)
    back.start()
    pump(client, upstream)


def pump(source, sink) -> None:
    try:
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        return


def make_authority(directory: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "stub CA")])
    now = dt.datetime.now(dt.UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(now).not_valid_after(now + dt.timedelta(days=1))
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    encoding = serialization.Encoding.PEM
    form = serialization.PrivateFormat.PKCS8
    (directory / "ca.key").write_bytes(key.private_bytes(encoding, form, serialization.NoEncryption()))
    (directory / "ca.crt").write_bytes(builder.sign(key, hashes.SHA256()).public_bytes(encoding))


if __name__ == "__main__":
    main()
