"""Measure a challenger beside the baseline and the champion, and judge it by the gates of params.yaml."""
