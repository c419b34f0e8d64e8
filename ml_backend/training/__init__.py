"""Learning from annotations: dataset, fine-tuning, gate, trigger policy."""
