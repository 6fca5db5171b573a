"""The model registry: tags in the origin that say which version of a model predicts, and who decided so."""
