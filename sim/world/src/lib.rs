//! Hosts, time, network and their faults on one thread: the engines.
