"""The commands of `dupmae index`, each in a module with its kin; `indexer.cli` puts them in order.

What takes long to import is imported inside the command that needs it, so that `--help` is quick.
"""
