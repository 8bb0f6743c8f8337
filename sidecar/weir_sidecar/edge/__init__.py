"""The edge: sockets, TLS, splice, DNS, UDP, admin. The only I/O on the data path; decisions come from `core`."""
