"""Programs of a run that begin as copies of a process which has imported what they need, and DVC as one of them."""
