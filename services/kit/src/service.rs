//! A service: subscriptions, timers and the relay over one broker and one store, started and closed together.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use broker::{Broker, Properties};
use context::{Context, Task};
use futures_util::future::select_all;

use crate::metrics::Metrics;
use crate::router::{Closing, Router, Subscription, Surroundings};
use crate::timer::{self, Timer};
use crate::{Naive, Store, outbox, relay};

/// How long a closing service lets messages in work end, and its outbox empty.
const CLOSE_WITHIN: Duration = Duration::from_secs(30);
/// How often a closing service looks whether its outbox is empty.
const CLOSE_LOOK: Duration = Duration::from_millis(10);

/// What a service is given from outside.
#[derive(Clone, Debug)]
pub struct ServiceConfig {
    /// Defects planted on purpose.
    pub naive: Naive,
    /// Properties of its consumers, over the kit's ([`crate::router::properties`]).
    pub consumer: Properties,
    /// Properties of its relay's producer, over the kit's ([`relay::properties`]).
    pub producer: Properties,
    /// How long a close may take, first for messages in work, then for the outbox.
    pub close_within: Duration,
}

impl Default for ServiceConfig {
    fn default() -> ServiceConfig {
        ServiceConfig {
            naive: Naive::none(),
            consumer: Properties::new(),
            producer: Properties::new(),
            close_within: CLOSE_WITHIN,
        }
    }
}

/// A service before it runs.
pub struct Service {
    around: Surroundings,
    producer: Properties,
    subscriptions: Vec<Subscription>,
    timers: Vec<Arc<dyn Timer>>,
    health: Health,
}

/// The reins of a service, for its host: numbers, health, and the way to close it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct ServiceHandle {
    metrics: Metrics,
    health: Health,
    closing: Closing,
}

/// Is it there, and can it work?
#[derive(Clone, Debug, Default)]
pub struct Health {
    /// All its parts have been started.
    running: Arc<AtomicBool>,
    ended: Arc<AtomicBool>,
    closing: Closing,
    routers: Arc<std::sync::Mutex<Vec<Arc<AtomicBool>>>>,
}

impl Health {
    /// Alive: it has not ended. While it starts and while it closes there is no reason to kill it.
    pub fn is_live(&self) -> bool {
        !self.ended.load(Ordering::Relaxed)
    }

    /// Ready: it runs, is not about to close, and the last poll of each of its consumers went well.
    pub fn is_ready(&self) -> bool {
        let routers = self.routers.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        self.is_live()
            && self.running.load(Ordering::Relaxed)
            && !self.closing.has_begun()
            && routers.iter().all(|healthy| healthy.load(Ordering::Relaxed))
    }
}

impl ServiceHandle {
    /// Its numbers.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Its health.
    pub fn health(&self) -> &Health {
        &self.health
    }

    /// Closes it in order: no new messages, those in work end, offsets are committed, groups left, then the outbox
    /// empties. [`Service::run`] returns when it is done.
    pub fn close(&self) {
        self.closing.begin();
    }
}

impl Service {
    /// A service without subscriptions and timers. All replicas of it share `store`.
    pub fn new(
        context: Context,
        broker: Arc<dyn Broker>,
        store: Arc<dyn Store>,
        config: ServiceConfig,
    ) -> Service {
        let around = Surroundings {
            context,
            broker,
            store,
            metrics: Metrics::new(),
            naive: config.naive,
            properties: config.consumer,
            closing: Closing::default(),
            close_within: config.close_within,
        };
        let health = Health { closing: around.closing.clone(), ..Health::default() };
        Service { around, producer: config.producer, subscriptions: Vec::new(), timers: Vec::new(), health }
    }

    /// With a subscription. Each has a consumer of its own.
    #[must_use]
    pub fn subscribe(mut self, subscription: Subscription) -> Service {
        self.subscriptions.push(subscription);
        self
    }

    /// With a timer: [`crate::saga::Sagas`], or one of the service's own.
    #[must_use]
    pub fn timer(mut self, timer: Arc<dyn Timer>) -> Service {
        self.timers.push(timer);
        self
    }

    /// The reins.
    pub fn handle(&self) -> ServiceHandle {
        ServiceHandle {
            metrics: self.around.metrics.clone(),
            health: self.health.clone(),
            closing: self.around.closing.clone(),
        }
    }

    /// Runs it until it was closed, or its host stops. If one of its parts dies, which is a panic, it closes by itself:
    /// with a part of it dead it would look healthy, and stand still.
    pub async fn run(self) {
        let Service { around, producer, subscriptions, timers, health } = self;
        let context = around.context.clone();
        around.naive.announce(&context);

        let relay = relay::run(
            context.clone(),
            around.broker.clone(),
            around.store.clone(),
            producer,
            around.metrics.clone(),
        );
        let mut relay = context.spawn("relay", relay);
        let mut timers: Vec<Task<()>> = timers
            .into_iter()
            .map(|timer| context.spawn("timer", timer::run(context.clone(), around.store.clone(), timer)))
            .collect();
        let mut routers = Vec::new();
        for subscription in subscriptions {
            let router = Router::new(around.clone(), subscription);
            health.routers.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(router.health());
            routers.push(context.spawn("router", router.run()));
        }

        health.running.store(true, Ordering::Relaxed);

        let parts = routers.iter_mut().chain(&mut timers).chain([&mut relay]);
        let died = tokio::select! {
            biased;
            () = around.closing.begun() => None,
            (_, number, _) = select_all(parts) => Some(number),
        };
        if let Some(number) = died {
            around.closing.begin();
            let (routing, timing) = (routers.len(), timers.len());
            let part = if number < routing {
                drop(routers.remove(number));
                "router"
            } else if number < routing + timing {
                drop(timers.remove(number - routing));
                "timer"
            } else {
                "relay"
            };
            context.trouble(format_args!("a {part} has died: the service closes"));
        }
        for router in routers {
            if router.await.is_none() {
                context.trouble(format_args!("a router has died"));
            }
        }
        timers.iter().for_each(Task::abort);
        for timer in timers {
            // One that was firing ends first: what it says is said below.
            timer.await;
        }
        // What handlers and timers have decided to say is said before the end (or waits in the store for the next).
        empty_outbox(&around).await;
        relay.abort();
        health.ended.store(true, Ordering::Relaxed);
    }
}

async fn empty_outbox(around: &Surroundings) {
    let deadline = around.context.now() + around.close_within;
    while outbox::depth(&*around.store).is_ok_and(|depth| depth > 0) {
        if around.context.now() >= deadline {
            around.context.trouble(format_args!("closes with an outbox that is not empty"));
            return;
        }
        around.context.sleep(CLOSE_LOOK).await;
    }
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service").field("subscriptions", &self.subscriptions).finish_non_exhaustive()
    }
}
