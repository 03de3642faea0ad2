"""Traces and metrics to an OpenTelemetry backend: now from a log, or live beside a deployment.

::

    otlp        spans of `replay.trace` as OpenTelemetry's own, sent by its exporter
    metrics     measures of `replay.measures` on OpenTelemetry's instruments
    follower    follows the log of all runs, exports what has ended, survives its own death
    feed        the log of all runs, message by message, from the broker
    live        the process that does so beside a deployment
    keeper      how the deployment's daemon starts it, and starts it again

`follower` and `keeper` need nothing of OpenTelemetry; `otlp` and `metrics` import its SDK.
"""
