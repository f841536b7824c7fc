"""What a trained model is worth: bounds, log p(x), and what they say together."""
