"""Networks that read and write texts alone, whose weights come from elsewhere."""
