"""The pocket model: a procedural world, and a small InstructPix2Pix trained on it."""
