"""Languages of captions: which each has, and how captions come so that languages count alike."""
