"""How good edits are, of any model on any data: metrics, and the public edit benchmarks they are quoted on."""
