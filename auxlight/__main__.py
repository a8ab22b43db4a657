"""`python -m auxlight`."""

from auxlight.cli import main

if __name__ == "__main__":
    main()
