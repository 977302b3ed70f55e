"""The suite's second meaning: Great Expectations itself over tables at rest, and whether the stream agrees.

`run` tells the flow. `population` reads the rows, `great_expectations` judges them, `agreement` holds its counts
against the stream's verdicts, `page` and `results` keep what came out.
"""
