"""Networks as other programs run them: from one file that needs nothing but torch."""
