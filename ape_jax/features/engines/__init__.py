"""Where features are encoded: in this process, or on the machines of a Ray cluster."""
