"""Networks of our own definition that load published weights."""
