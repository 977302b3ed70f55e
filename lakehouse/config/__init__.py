"""The pipeline file: what it may say, how it is read, and what has to fit together."""
