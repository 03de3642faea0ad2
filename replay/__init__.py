"""The event log, and all that reads it. A replay never causes an effect.

::

    log                           the port; memory_log and jetstream_log implement it
    chain                         what counts of a run's messages; RunLog, a run as its log has it
    history                       its events, numbered from 1
    timeline, attribution         what happened when, and which cause of a commit led to which event
    film, differences             the state at any event, and what changed between two
    causality                     who led to what, over parents and children
    forks                         runs that begin with the events of another
    tokens                        a policy's replies token by token, where it is a model of ours
    redecide                      the recorded causes through the rules of today
    trace, spans, measures        OpenTelemetry's spans and metrics, as projections of a log
    diff, sides                   two runs compared
    verify                        whether a log is sound, and still decided the same way
    streams, broker, connection   JetStream, and one connection to it
    durability, scrub, foreign    what the broker really does, and what is wrong with what it holds
"""
