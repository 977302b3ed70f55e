"""The rollups over HTTP: questions in URLs, answers as JSON or Arrow, nothing ever written. See docs/api.md."""
