"""`shoal ui`: experiments in a browser, and as JSON. Nothing is decided here."""
