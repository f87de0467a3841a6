"""`ip2p-fast serve`: one engine thread that runs the loop for ever, and an OpenAI-compatible endpoint before it.

`engine.py` and what it imports need numpy alone, so that a page or another server can stand before the same engine.
"""
