"""What this project ran; each experiment has a record in results/."""
