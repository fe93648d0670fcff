"""The service that is deployed, and its command line."""
