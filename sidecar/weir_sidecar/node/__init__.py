"""The node agent: does in a pod's network namespace what its init container would, so that the pod needs no capability.

It is asked by the CNI plugin (cni/shim.c) when a pod's sandbox is made, and by a pod's sidecar for sockets. Whatever is done
in a pod's namespace is done by a forked child; the agent itself never leaves its own. What it must know after a restart is
in its directory of records and nowhere else.
"""
