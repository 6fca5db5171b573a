"""Part rows into the slices on which a model is measured by itself."""
