"""The HTTP service and the `dupmae` command: text in, ranked and explained hits out."""
