"""Which files the spec of pairs names: patterns, folders, several sources, urls."""
