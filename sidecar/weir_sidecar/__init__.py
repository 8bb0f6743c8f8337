"""The sidecar: brings every flow of a pod to one place, decides, intercepts or splices, and records.

Rooms, from the bottom up (imports go this way only, and a linter enforces it):

- `contract`: the sidecar config and the flow record; the only things shared with the rest of the world.
- `wire`: parsers. Bytes in, facts out. No I/O.
- `core`: decisions. Policy, trust cache, TLS outcomes. Pure functions and state machines; the clock is an argument.
- `netfilter`: the kernel's ruleset as data, rendered to text. Pure.
- `certs`: the CA, leaves that mirror an upstream, bundles and trust stores.
- `netsetup`: loads rules, routes and namespaces. Needs NET_ADMIN; never part of the running sidecar.
- `edge`: the only I/O on the data path: sockets, TLS, splice, DNS, admin.
"""

__version__ = "0.1.0"
