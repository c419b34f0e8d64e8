"""Settings -> wired applications: the only place that constructs, a file for each process.

Each process imports the file it needs: the web process must never load torch.
"""
