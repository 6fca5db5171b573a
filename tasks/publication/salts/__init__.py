"""Keep the salts by which personal data is hashed, one for each value, where they can be deleted: `pii: salted`."""
