//! Tasks that belong to a host.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};

use tokio::sync::oneshot;

/// An owned future that may cross threads, as production's runtime demands.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The reins of a running task. Dropping them lets the task run on.
#[derive(Clone)]
pub struct TaskHandle {
    stop: Arc<dyn Fn() + Send + Sync>,
}

impl TaskHandle {
    /// A handle whose task is stopped by `stop`.
    pub fn new(stop: impl Fn() + Send + Sync + 'static) -> TaskHandle {
        TaskHandle { stop: Arc::new(stop) }
    }

    /// Stops the task at its next await; it is dropped there. Nothing happens if it has ended.
    pub fn abort(&self) {
        (self.stop)();
    }
}

impl fmt::Debug for TaskHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TaskHandle")
    }
}

/// A running task with a result. Dropping it lets the task run on.
#[derive(Debug)]
pub struct Task<T> {
    result: oneshot::Receiver<T>,
    handle: TaskHandle,
}

impl<T> Task<T> {
    pub(crate) fn new(result: oneshot::Receiver<T>, handle: TaskHandle) -> Task<T> {
        Task { result, handle }
    }

    /// Stops the task at its next await.
    pub fn abort(&self) {
        self.handle.abort();
    }

    /// The reins alone.
    pub fn handle(&self) -> TaskHandle {
        self.handle.clone()
    }
}

impl<T> Future for Task<T> {
    /// `None` if the task was aborted or panicked.
    type Output = Option<T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Option<T>> {
        Pin::new(&mut self.result).poll(cx).map(Result::ok)
    }
}
