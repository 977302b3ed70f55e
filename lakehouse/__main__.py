"""`python -m lakehouse` is the same as `lakehouse`."""

from lakehouse.cli import main

if __name__ == "__main__":
    main()
