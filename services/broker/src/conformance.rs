//! The conformance suite: one function a case, over any Broker.
