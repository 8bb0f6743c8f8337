"""The bench: Weir beside its peers, on one machine, in one run, on the same work. See docs/benchmarks.md."""
