"""The kernel's ruleset as data, rendered to the text that `nft -f` loads. Pure: a capture config in, text out."""
