"""A text file that a user brings: read, or one line that says what is wrong with it."""
