"""Scripts that run in environments of other libraries, see `tests.foreign`; none imports ours."""
