"""What a pod needs before its first container starts: the kernel's rules, the CA, and the files of trust.

The init container runs it, and ends. It starts as root with NET_ADMIN, and gives that up as soon as the rules are loaded;
in CNI mode the node's agent has loaded them, and it has no privilege at all.
"""
