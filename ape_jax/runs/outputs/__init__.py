"""What a run reads of its towers: layers, and the pooling of captions."""
