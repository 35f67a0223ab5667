"""The papers' experiments: settings, claims and published numbers."""
