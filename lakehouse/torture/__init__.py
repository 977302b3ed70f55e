"""The kill harness: seeded faults against a running pipeline, and checks that would notice if it lost or doubled."""
