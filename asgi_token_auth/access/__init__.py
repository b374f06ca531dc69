"""Who people are and what they may do, where they come without a token."""
