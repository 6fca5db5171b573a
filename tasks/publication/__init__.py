"""Nights: scored in shards, kept on disk, published to the object store; which parts are deleted from it, and when."""
