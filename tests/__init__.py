"""Tests: a package, so that they can share the helpers beside them (`tests.broker`)."""
