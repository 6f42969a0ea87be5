"""The HTTP server and the web page, on one schema of requests and responses."""
