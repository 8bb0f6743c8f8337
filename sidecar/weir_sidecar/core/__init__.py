"""Decisions: policy, trust cache, TLS outcomes, learned names. Pure functions and state machines; time is an argument."""
