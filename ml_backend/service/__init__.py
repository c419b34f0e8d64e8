"""What the product does with a request: predictions, their delivery, connecting, checking."""
