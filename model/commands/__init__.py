"""The commands of `dupmae model`, each in a module with its kin; `model.cli` puts them in order.

Torch is imported by the command that needs it, when it runs, and only there.
"""
