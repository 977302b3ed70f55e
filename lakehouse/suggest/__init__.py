"""From data to rules: what silver's rows look like, and the suite that they all pass.

`sample` reads row groups of one version, `profile` says what is in them, `propose` makes expectations of that,
`proof` holds each against the same rows again, `run` tells the flow. No JVM.
"""
