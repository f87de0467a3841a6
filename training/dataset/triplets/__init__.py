"""Captions to triplets: instruction and edited caption, written by a language model."""
