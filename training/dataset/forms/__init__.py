"""The forms in which a data set of picture pairs lies on a disk: read, written, looked at."""
