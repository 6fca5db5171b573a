"""Send a line of JSON of each published night to whoever waits for it, at least once: `publish.announce`."""
