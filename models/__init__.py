"""Networks and geometry in pure torch and NumPy: no files, no Prefect, no global state. Imports `common` alone."""
