//! What event-driven services share: router and middleware, stores, inbox and outbox, saga, HTTP.
