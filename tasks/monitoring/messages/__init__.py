"""Tell people what they must know: a night is late, something stopped, the champion changed, an approval waits."""
