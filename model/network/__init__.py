"""The network: how a row becomes tokens, the encoder, its heads, and how weights are stored."""
