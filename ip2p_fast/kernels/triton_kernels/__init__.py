"""The operators in Triton: what CUDA devices run where the extension has no CUDA part."""
