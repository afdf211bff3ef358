"""Brax robots: physics, randomised dynamics, and one file of families a robot."""
