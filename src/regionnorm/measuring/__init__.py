"""How good fills are: measures, evaluation, tables."""
