"""The program's verbs where a cluster is asked instead of a sidecar on this machine. All through kubectl: its login is ours."""
