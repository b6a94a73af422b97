"""What models are made of: the base of every model, bodies and towers, inputs, layers."""
