"""What hostile clients send, made from a seed: the same every time, and named by it when something breaks."""
