"""What the object store holds of a product, and how it changes."""
