"""The control plane, its pure part: policies as users write them, compiled to the sidecar config."""
