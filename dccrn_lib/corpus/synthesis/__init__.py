"""A generated corpus: speech, noise and rooms from rules, without the network."""
