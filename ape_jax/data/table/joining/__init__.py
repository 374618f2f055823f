"""From rows to pairs, on the whole table: rows of one image are joined, and images named."""
