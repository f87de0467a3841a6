"""Triplets to pairs of pictures: Prompt-to-Prompt draws, CLIP chooses, a store keeps."""
