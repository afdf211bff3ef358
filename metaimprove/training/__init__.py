"""Trains operators by maximum likelihood."""
