"""What every package needs; it imports none of them."""
