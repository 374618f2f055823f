"""How batches reach the step: from the host, or from features on the device."""
