"""The simulator at work: crash points by the hundred thousand, and bugs planted to be found."""
