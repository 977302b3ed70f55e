"""One module per page; not named `pages`, which Streamlit would discover by itself."""
