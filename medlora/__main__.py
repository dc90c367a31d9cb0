"""``python -m medlora`` is ``medlora``."""

from medlora.cli import main

if __name__ == "__main__":
    main()
