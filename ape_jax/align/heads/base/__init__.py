"""Parts of heads: their base class, input, hidden layers, batch norm and shared keys."""
