"""Workers' adapters: what turns an `Attempt` into an `Outcome`, one small class for each kind.

``WorkerSpec.adapter`` begins with the kind: ``function:module:name``.
"""

from actors.workers.function import FunctionAdapter, is_tool, spec_of, tool
from actors.workers.threads import cancelled

__all__ = ["FunctionAdapter", "cancelled", "is_tool", "spec_of", "tool"]
