"""Captions to triplets to pairs to a trained model. Installs as `ip2p_fast.training`."""
