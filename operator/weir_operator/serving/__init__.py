"""The stateless service: admission of pods, and the config stream. Runs in two or more replicas."""
