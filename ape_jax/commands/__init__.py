"""What the larger commands do; the file of a command imports it when the command is called."""
