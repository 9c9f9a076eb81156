//! Each layer alone, around a core that does what a claim asks. Each claim shows the layer bite.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use broker::{ConsumerRecord, Headers, TopicPartition};
use context::{Context, NoRecorder, Seed};
use kit::middleware::{
    Core, Correlate, Duplicate, Incoming, Measure, Middleware, Next, Outcome, RandomFail, Recover, Retry,
    Timeout,
};
use kit::{Backoff, HandlerError, MemStore, Metrics, Naive, Scope};
use world::{Engine, LatencyRange, WorldConfig};

/// Runs a claim on a host of its own world: time there is simulated.
fn on_a_host<F: Future<Output = ()> + Send + 'static>(claim: impl Fn(Scope) -> F + Send + Sync + 'static) {
    let config =
        WorldConfig { seed: Seed(7), latency: LatencyRange::millis(1, 1), recorder: Arc::new(NoRecorder) };
    let mut world = world::build(Engine::Jump, config).expect("built with tokio_unstable");
    let done: Arc<AtomicU32> = Arc::default();
    let ended = done.clone();
    world.add_host(
        "host",
        context::program(move |context: Context| {
            let scope = Scope {
                context,
                store: Arc::new(MemStore::new("store")),
                group: "group".into(),
                attempt: 0,
                naive: Naive::none(),
            };
            let claim = claim(scope);
            let ended = ended.clone();
            async move {
                claim.await;
                ended.store(1, Ordering::Relaxed);
            }
        }),
    );
    world.run_until(world.now() + Duration::from_secs(3_600));
    assert_eq!(done.load(Ordering::Relaxed), 1, "the claim came to its end within an hour");
}

/// Counts its calls, and answers as it is told.
struct Told<F> {
    calls: AtomicU32,
    answer: F,
}

impl<F: Fn(u32) -> Result<Outcome, HandlerError> + Send + Sync + 'static> Told<F> {
    /// `answer` takes the number of the call, from 1.
    fn new(answer: F) -> Told<F> {
        Told { calls: AtomicU32::new(0), answer }
    }

    fn calls(&self) -> u32 {
        self.calls.load(Ordering::Relaxed)
    }
}

#[async_trait]
impl<F: Fn(u32) -> Result<Outcome, HandlerError> + Send + Sync + 'static> Core for Told<F> {
    async fn handle(&self, _: &Scope, _: &Incoming) -> Result<Outcome, HandlerError> {
        let call = self.calls.fetch_add(1, Ordering::Relaxed) + 1;
        (self.answer)(call)
    }
}

fn incoming() -> Incoming {
    Incoming::new(ConsumerRecord {
        partition: TopicPartition::new("topic", 0),
        offset: 0,
        leader_epoch: None,
        timestamp: world::EPOCH,
        key: None,
        value: None,
        headers: Headers::default(),
    })
}

async fn through(layer: impl Middleware, scope: &Scope, core: &dyn Core) -> Result<Outcome, HandlerError> {
    let layers: [Arc<dyn Middleware>; 1] = [Arc::new(layer)];
    Next::new(&layers, core).run(scope, &incoming()).await
}

fn transient() -> HandlerError {
    HandlerError::Transient("busy".into())
}

fn retry(tries_max: Option<u32>) -> Retry {
    Retry::new(tries_max, Backoff::new(Duration::from_millis(100), Duration::from_secs(1)), Metrics::new())
}

#[test]
fn retry_tries_a_transient_error_again_after_waits_that_grow() {
    on_a_host(|scope| async move {
        let times = Arc::new(Mutex::new(Vec::new()));
        let (seen, context) = (times.clone(), scope.context.clone());
        let core = Told::new(move |call| {
            seen.lock().unwrap_or_else(PoisonError::into_inner).push(context.now());
            if call < 5 { Err(transient()) } else { Ok(Outcome::Applied) }
        });
        assert_eq!(through(retry(None), &scope, &core).await, Ok(Outcome::Applied));
        let times = times.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let waits: Vec<_> = times.windows(2).map(|pair| pair[1].since(pair[0]).as_millis()).collect();
        for (wait, longest) in waits.iter().zip([100, 200, 400, 800]) {
            // A wait is rounded up to whole milliseconds.
            assert!((longest / 2..=longest + 1).contains(wait), "{waits:?}");
        }
    });
}

#[test]
fn retry_gives_up_after_its_tries_and_never_retries_what_no_retry_mends() {
    on_a_host(|scope| async move {
        let core = Told::new(|_| Err(transient()));
        assert_eq!(through(retry(Some(3)), &scope, &core).await, Err(transient()));
        assert_eq!(core.calls(), 3);
        for error in [
            HandlerError::Business("no".into()),
            HandlerError::Parse("what".into()),
            HandlerError::Panicked("!".into()),
        ] {
            let given = error.clone();
            let core = Told::new(move |_| Err(given.clone()));
            assert_eq!(through(retry(None), &scope, &core).await, Err(error));
            assert_eq!(core.calls(), 1);
        }
    });
}

#[test]
fn retry_tells_the_handler_which_try_it_is() {
    struct Attempts(Mutex<Vec<u32>>);
    #[async_trait]
    impl Core for Attempts {
        async fn handle(&self, scope: &Scope, _: &Incoming) -> Result<Outcome, HandlerError> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).push(scope.attempt);
            Err(transient())
        }
    }
    on_a_host(|scope| async move {
        let core = Attempts(Mutex::default());
        assert_eq!(through(retry(Some(3)), &scope, &core).await, Err(transient()));
        assert_eq!(*core.0.lock().unwrap_or_else(PoisonError::into_inner), [0, 1, 2]);
    });
}

#[test]
fn timeout_ends_a_try_that_hangs() {
    struct Hangs;
    #[async_trait]
    impl Core for Hangs {
        async fn handle(&self, _: &Scope, _: &Incoming) -> Result<Outcome, HandlerError> {
            std::future::pending().await
        }
    }
    on_a_host(|scope| async move {
        let start = scope.context.now();
        let result = through(Timeout(Duration::from_secs(2)), &scope, &Hangs).await;
        assert_eq!(result, Err(HandlerError::Transient("the handler timed out after 2s".into())));
        assert_eq!(scope.context.now().since(start), Duration::from_secs(2));
    });
}

#[test]
fn recover_turns_a_panic_into_an_error_and_counts_it() {
    on_a_host(|scope| async move {
        let metrics = Metrics::new();
        let core = Told::new(|_| std::panic::resume_unwind(Box::new("on purpose")));
        let result = through(Recover::new(metrics.clone()), &scope, &core).await;
        assert_eq!(result, Err(HandlerError::Panicked("on purpose".into())));
        assert_eq!(metrics.panics(), 1);
    });
}

#[test]
fn measure_counts_what_comes_and_what_becomes_of_it() {
    on_a_host(|scope| async move {
        let metrics = Metrics::new();
        let measure = || Measure::new(metrics.clone());
        through(measure(), &scope, &Told::new(|_| Ok(Outcome::Applied))).await.unwrap();
        through(measure(), &scope, &Told::new(|_| Ok(Outcome::Skipped))).await.unwrap();
        through(measure(), &scope, &Told::new(|_| Err(transient()))).await.unwrap_err();
        let text = metrics.text();
        for line in [
            r#"messages_received_total{topic="topic"} 3"#,
            r#"messages_handled_total{topic="topic"} 2"#,
            r#"messages_skipped_total{topic="topic"} 1"#,
            r#"message_processing_seconds_count{topic="topic"} 3"#,
            "messages_in_progress 0",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    });
}

#[test]
fn random_fail_strikes_before_and_after_the_work_about_as_often_as_asked() {
    on_a_host(|mut scope| async move {
        let half = Arc::new(RandomFail::new(500_000));
        let core = Told::new(|_| Ok(Outcome::Applied));
        let layers: [Arc<dyn Middleware>; 1] = [half];
        let mut failed = 0;
        for attempt in 0..400 {
            scope.attempt = attempt;
            failed += u32::from(Next::new(&layers, &core).run(&scope, &incoming()).await.is_err());
        }
        assert!((150..250).contains(&failed), "{failed} of 400");
        let undone = 400 - core.calls();
        assert!(undone > 50 && undone < failed - 50, "{undone} of {failed} failures came before the work");
        assert!(through(RandomFail::new(0), &scope, &core).await.is_ok());
        assert!(through(RandomFail::new(1_000_000), &scope, &core).await.is_err());
    });
}

#[test]
fn duplicate_hands_a_delivery_on_twice() {
    on_a_host(|scope| async move {
        let core = Told::new(|_| Ok(Outcome::Applied));
        through(Duplicate::new(1_000_000), &scope, &core).await.unwrap();
        assert_eq!(core.calls(), 2);
        through(Duplicate::new(0), &scope, &core).await.unwrap();
        assert_eq!(core.calls(), 3);
    });
}

#[test]
fn correlate_passes_everything_on() {
    on_a_host(|scope| async move {
        let core = Told::new(|call| if call == 1 { Ok(Outcome::Skipped) } else { Err(transient()) });
        assert_eq!(through(Correlate, &scope, &core).await, Ok(Outcome::Skipped));
        assert_eq!(through(Correlate, &scope, &core).await, Err(transient()));
    });
}
