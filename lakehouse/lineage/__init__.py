"""OpenLineage events about a running pipeline: which datasets it reads and writes, how much, and how good."""
