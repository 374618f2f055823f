"""What terms of the loss need beside the model, made when a run is made ready."""
