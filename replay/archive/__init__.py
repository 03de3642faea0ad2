"""Finished runs as Parquet, in a folder or an object store; read with the live log as one.

::

    manifests/00000001-<hash>.json   what one batch added: its segments, and of each run its head
    segments/<hash>.parquet          messages, original bytes: run, where, seq, n, at, hash, bytes
    blobs/<hash>.parquet             values too large for a message: sha256, size, bytes

Nothing is ever changed or written over: each file is named by its hash, and what comes later of a
run stands in a later batch.

=============  ====================================================================================
`folder`       a place by its URL: read, list, put a file there whole or not at all
`manifest`     what a batch says of itself, and the index of all of them
`segments`     messages to Parquet and back
`shelf`        the archive as a `Shelf`
`archiver`     live log to archive: write, read back, commit, purge
`blobs`        out of the live store, when no run there names them
`keeper`       what it may do to the live log that nobody else may
=============  ====================================================================================

`pyarrow` and `fsspec` come with the extra ``archive`` and are loaded when they are first needed.
"""
