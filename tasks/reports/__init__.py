"""Make the report of a training, one page without script, and keep it beside the nights with a list of trainings."""
