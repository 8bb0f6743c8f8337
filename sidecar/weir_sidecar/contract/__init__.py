"""The contract: what the sidecar is told (`config`) and what it tells (`flow`).

The consumer owns it. It is versioned, it is all that operator and sidecar share, and it depends on nothing of ours.
"""
