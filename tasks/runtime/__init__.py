"""What every stage uses: errors, settings, paths, files, hashes, records, results, git, processes, failpoints."""
