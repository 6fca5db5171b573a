"""Pretraining, fine-tuning and what is fitted in closed form."""
