"""The command line: thin commands over ``Shed``, with Docker's habits."""
