"""The live dashboard: a Streamlit app over the snapshots of `lakehouse.serving`; it never starts a JVM."""
