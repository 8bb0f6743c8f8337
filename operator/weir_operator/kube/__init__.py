"""The API server: requests, and caches that follow it. The only I/O towards Kubernetes outside kopf."""
