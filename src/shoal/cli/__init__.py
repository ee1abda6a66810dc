"""The `shoal` command: it parses and prints; nothing is decided here."""
