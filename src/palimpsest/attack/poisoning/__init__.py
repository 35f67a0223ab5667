"""Attacks that hand in records before training, to see whether unlearning them takes their influence away."""
