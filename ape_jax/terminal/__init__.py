"""What commands share: flags and exit codes, progress lines, tables."""
