"""A seeded, open-loop load for a topic of feature events: life-like, with late events and known bad ones."""
