"""Keep what was seen of every published night, and what came true of it."""
