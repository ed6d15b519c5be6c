"""The kinds of stages, each in a module of its own: base.py says what a kind is, table.py which there are."""
