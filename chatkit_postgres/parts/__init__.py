"""What settings say, as the parts want it. A module imports no more than its part needs: commands start fast."""
