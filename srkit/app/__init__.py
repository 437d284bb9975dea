"""What others open in a browser: the class's page (`pages`), and a network on a page of its own (`static`)."""
