"""Policies and pods of a cluster: which policies select a pod, and what they come to. Pure."""
