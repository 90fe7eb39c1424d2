"""Figure 2 and equations 1 to 7: the shift of mean and variance."""
