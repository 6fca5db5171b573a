"""Devices, processors and processes that compute together."""
