"""How weights learn: the loop, the engines it drives, and several trainings in one pass."""
