"""Alerts of a pipeline's file: read without a JVM from the hot tables and `_ops`, remembered, told.

`conditions` says whether a condition holds, `standings` what follows from that over time, `history` keeps it in the
journal `_ops/NAME_alerts`, `channels` tell it, and `evaluator` does all of that again and again.
"""
