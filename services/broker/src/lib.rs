//! The Broker trait, its vocabulary, and the conformance suite every Broker must pass.
