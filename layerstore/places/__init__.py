"""Places that images come from and go to, and `copy` between any two of them."""
