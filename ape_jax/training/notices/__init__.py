"""What a run notices while it trains: that nothing is learned, and why; captions that are cut."""
