"""What a tower is, for people: its description, its card, and its library beside it."""
