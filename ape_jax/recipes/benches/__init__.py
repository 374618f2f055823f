"""Protocols of other papers, with the methods of this package: found by name as all recipes."""
