"""A pod, and what is to be captured of it, to the pod with Weir in it, or to why not. Pure."""
