"""The paper's figures, measured on any model and redrawn from their results files."""
