"""MCTformer: a vision transformer with a token for every class, and what these tokens attend to."""
