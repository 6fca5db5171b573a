"""Learn where answers stand in texts."""
