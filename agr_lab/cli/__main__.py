"""``python -m agr_lab.cli``, which ``accelerate launch -m`` needs: the same as ``agr``."""

from agr_lab.cli.main import main

if __name__ == "__main__":
    main()
