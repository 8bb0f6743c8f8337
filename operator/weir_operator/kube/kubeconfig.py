"""Where the API server is and how to be known to it: from a kubeconfig, or from what a pod is given."""
