"""The privacy audit: tries to catch the node's own training path leaking more than its budget says."""
