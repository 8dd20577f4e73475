"""What a run holds, written for people and for other programs."""
