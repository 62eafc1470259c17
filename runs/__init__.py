"""Whole runs: how models are made, and how they are measured and drawn. No package imports from here."""
