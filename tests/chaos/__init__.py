"""Rounds of random faults under load, and a checker of what must hold afterwards."""
