"""Builds each part from the settings, and joins them. A module imports no more than it needs: commands start fast."""
