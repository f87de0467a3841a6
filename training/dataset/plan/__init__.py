"""What a data set costs before it is made."""
