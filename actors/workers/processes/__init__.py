"""Workers that run what they are given as processes: sandboxed Python, commands from an allow-list.

===================  ===============================================================================
the worker's side    ``sandbox`` and ``shell`` are the adapters; ``warden`` starts a warden, which
                     looks after a process and all that it starts, and sees it end; ``allowed`` is
                     the allow-list
the sandbox's uses   ``sandbox_process`` is one sandbox; ``sandbox_warm`` keeps some that wait,
                     ``sandbox_sessions`` those of runs
the warden's own     ``isolated`` starts ``sandbox_child`` or ``shell_child`` in an interpreter of
                     the standard library alone; ``sandbox_code`` is inside; ``watching``,
                     ``family``, ``kernel`` and ``pipes`` are what they share
===================  ===============================================================================
"""
