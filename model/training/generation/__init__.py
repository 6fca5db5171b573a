"""Trainings of networks that write texts."""
