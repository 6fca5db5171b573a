"""What every stage stands on and no product is known to: errors, settings, paths, files, git, processes."""
