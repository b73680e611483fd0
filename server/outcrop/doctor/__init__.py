"""What this machine has of all that Outcrop needs, and what to do about the rest."""
