"""Many runs as lanes of few compiled programs."""
