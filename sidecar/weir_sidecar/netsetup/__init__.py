"""Privileged set-up: loads rules, routes and namespaces with nft and ip. Never imported by the running sidecar."""
