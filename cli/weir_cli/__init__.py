"""The `weir` program: run, render, explain, flows, exceptions, doctor. On top of everything; nothing imports it."""
