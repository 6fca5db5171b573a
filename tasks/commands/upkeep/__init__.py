"""Remove what nobody needs, and look after packages and schemas."""
