"""The network: how a row becomes tokens, the encoder, the linear parts beside it, and how weights are stored."""
