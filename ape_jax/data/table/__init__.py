"""The table of pairs: how rows of any format become one Arrow table, and how it is kept."""
