"""The learner: examples → weights. One packed loss, so that SFT, RL and mixes are one path."""
