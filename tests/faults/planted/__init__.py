"""Services with one mistake each, put in from outside through the composition root, for the checker to find."""
