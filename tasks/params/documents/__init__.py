"""What is written from the declaration of a product: the JSON Schema for editors and the reference for readers."""
