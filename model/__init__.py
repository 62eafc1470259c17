"""The DupMAE encoder: its network, training and export, and the runtime that loads an exported artifact.

`artifact`, `encoder` and `vector` need neither torch nor transformers; everything else here does.
"""
