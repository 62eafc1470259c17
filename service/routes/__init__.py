"""The HTTP surface, one file per resource."""
