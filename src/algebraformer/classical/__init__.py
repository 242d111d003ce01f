"""What a user would use instead of a learned solver."""
