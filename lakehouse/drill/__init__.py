"""A fault drill: a real pipeline is disturbed from outside, and the right alert has to reach a receiver in time."""
