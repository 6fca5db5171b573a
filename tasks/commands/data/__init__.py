"""Answer what a product's data asks, and propose new products."""
