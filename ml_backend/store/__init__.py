"""The records: what must outlive a process, in SQL, one noun a file.

Every class here takes a `Database`, is safe to use from many threads and processes, opens one
short transaction per call and raises `StoreError` when the records cannot be read or written.
Times are seconds since the epoch (`time.time`), from a clock that tests can replace. Reads do not
block and are not blocked; writes happen only when something changed.
"""
