"""Several layers of a tower, read in one pass: some of them joined, or each by itself."""
