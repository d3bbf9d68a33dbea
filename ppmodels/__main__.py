"""`python -m ppmodels`: the command line."""

from ppmodels.app.cli import main

if __name__ == "__main__":
    main()
