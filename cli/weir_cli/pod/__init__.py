"""The local pod: what a cluster's node, kubelet and init container do, done on one machine by `weir run`.

A network namespace with a link to the host (`namespace`, `addresses`), the host's side of it (`host`, `firewall`,
`resolv`), the sidecar and its supervisor (`sidecar`, `supervise`), what the command sees (`identity`, `trust_env`,
`view`, `command`), and the promise to leave nothing behind (`ledger`, `cleanup`). `session` puts them in order.
Linux only.
"""
