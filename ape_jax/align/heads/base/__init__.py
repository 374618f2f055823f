"""What heads are made of: their base class, input, hidden layers, batch norm and shared keys."""
