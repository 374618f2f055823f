"""A page that a process shows in a browser, and what stands before it."""
