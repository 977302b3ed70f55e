"""What a pipeline costs a month: `model` has the formulas, `prices.yaml` every price and assumption with its date.

`analysis` asks what changes the sum, `measure` replaces assumptions by what the user's own tables show, `run` tells
the flow. No JVM, no network.
"""
