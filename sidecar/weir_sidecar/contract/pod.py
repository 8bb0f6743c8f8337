"""A captured pod's files: where the webhook mounts what, and where init container and sidecar read and write it."""

NO_RULES_STATUS = 3
"""Exit status of the init container in a pod whose rules nobody has loaded, and which may not start without them."""

RUN = "/run/weir"
"""Everything of Weir's is below it, in our containers and in the application's."""

PRIVATE = f"{RUN}/pod"
"""tmpfs that only our two containers see."""
RUN_DIR = f"{PRIVATE}/run"
"""The proxy's own, 0700: config.json, ca.key, ca.crt; at once the sidecar's run and state directory."""

INFO = f"{RUN}/info"
"""The pod's annotation as a file."""
CONFIG = f"{INFO}/config.json"

TOKEN_DIR = f"{RUN}/token"
TOKEN = f"{TOKEN_DIR}/token"
"""The service account token for the config stream."""

CREDENTIALS = f"{RUN}/credentials"
"""The Secrets of rules' credentials, NAME/KEY: in the sidecar alone."""

TRUST = f"{RUN}/trust"
"""tmpfs with public files, written by the init container, read by every container."""
BUNDLE = "bundle.crt"
"""In `TRUST`: public roots, the policy's roots, and the CA."""
CA = "ca.crt"
"""In `TRUST`: the CA alone, or all CAs of a Secret."""
TRUST_STORE = "truststore.jks"
"""In `TRUST`: what `BUNDLE` holds, for Java."""
CERTS = "certs"
"""In `TRUST`: a directory as OpenSSL hashes it."""
CHROMIUM_POLICY = "browsers.json"
"""In `TRUST`: an enterprise policy that adds the CA to Chromium and Chrome."""
FIREFOX_POLICY = "firefox.json"
"""In `TRUST`: the same for Firefox."""
