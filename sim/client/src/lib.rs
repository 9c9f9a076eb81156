//! Broker on our own small wire-protocol client, for use inside the simulation.
