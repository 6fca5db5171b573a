"""Heads of networks that answer more than a fixed number of classes."""
