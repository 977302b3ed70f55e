"""Data quality: a Great Expectations suite, compiled to Spark columns that judge each row of the stream.

`suite` loads the file (no JVM), `rules` compiles it, `verdicts` adds `_errors` and `_warnings` to rows.
`catalogue` says for each expectation type what can judge it; docs/expectations.md is made from it.
"""
