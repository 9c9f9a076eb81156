//! The contracts of the six services: messages, topic names, header names, ids.
