"""What happens inside a network: its layers' numbers and their pictures."""
