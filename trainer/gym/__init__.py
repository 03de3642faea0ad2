"""The gym: checkable tasks over real data, answered by real tools, on which the loop is proven."""
