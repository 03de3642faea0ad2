"""Where rollouts come from: a log that is there, live actors, or the fast lane in this process."""
