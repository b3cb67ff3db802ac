"""How good a model is: realised with labels, estimated without them."""
