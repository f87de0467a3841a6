"""The server under load: real processes, requests over loopback."""
