"""From three rows and many steps to one row and few: guidance distillation, then step distillation."""
