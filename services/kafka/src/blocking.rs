//! Calls that block inside librdkafka, off the runtime's own threads.

#![expect(clippy::disallowed_methods, reason = "librdkafka's calls block; never simulated")]

/// Runs `call` on one of tokio's blocking threads. If the caller stops waiting, the call still ends by itself.
pub(crate) async fn blocking<T: Send + 'static>(call: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(call).await {
        Ok(result) => result,
        Err(failed) => std::panic::resume_unwind(failed.into_panic()),
    }
}

/// Begins `call` on one of tokio's blocking threads, beside the caller.
pub(crate) fn aside(call: impl FnOnce() + Send + 'static) -> tokio::task::JoinHandle<()> {
    tokio::task::spawn_blocking(call)
}

/// Drops something whose end blocks, without blocking the runtime if there is one.
pub(crate) fn drop_aside<T: Send + 'static>(value: T) {
    match tokio::runtime::Handle::try_current() {
        Ok(runtime) => {
            runtime.spawn_blocking(move || drop(value));
        }
        Err(_) => drop(value),
    }
}
