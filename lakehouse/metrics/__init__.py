"""What a running pipeline tells about itself, off the hot path: Prometheus metrics and the journal `_ops/NAME`.

`catalogue` declares every metric; the exporter, dashboards, alert rules and docs/operations.md are made from it.
"""
