"""Messages in, transactions and matches out."""
