//! One seed, one run.

use std::collections::BTreeSet;
use std::process::Command;
use std::sync::Arc;

use context::{Context, EventKind, Seed};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use world::{Engine, LatencyRange};

use crate::stage::*;

/// The order in which ten hosts get their turn at one instant.
fn order(engine: Engine, seed: u64) -> Vec<String> {
    let mut stage = Stage::with(engine, Seed(seed), LatencyRange::millis(1, 1));
    for number in 0..10 {
        stage.host(&format!("h{number}"), |context, log| async move {
            context.sleep(ms(100)).await;
            log.say(&context, context.name());
            context.sleep(ms(1_000)).await;
        });
    }
    stage.pass(200);
    stage.log.lines()
}

pub(crate) fn ties_between_hosts_are_drawn_from_the_seed(engine: Engine) -> Outcome {
    let orders: BTreeSet<Vec<String>> = (0..8).map(|seed| order(engine, seed)).collect();
    assert!(orders.len() > 4, "different seeds, different orders: {orders:?}");
    assert_eq!(order(engine, 5), order(engine, 5));
    Ok(())
}

/// Asks for a few bytes back.
async fn ask(context: &Context, server: &str, byte: u8) -> std::io::Result<()> {
    let mut stream = context.connect(server, PORT).await?;
    stream.write_all(&[byte; 64]).await?;
    stream.read_exact(&mut [0; 64]).await.map(|_| ())
}

/// A run with some of everything, and its hash.
pub(crate) fn busy_run(engine: Engine, seed: u64, flip: bool) -> (u64, u64) {
    let mut stage = Stage::with(engine, Seed(seed), LatencyRange::millis(1, 5));
    for server in ["server-1", "server-2"] {
        stage.host(server, echo);
    }
    for number in 0..4 {
        let server = if number % 2 == 0 { "server-1" } else { "server-2" };
        let byte = u8::from(flip && number == 3);
        stage.host(&format!("client-{number}"), move |context, _| async move {
            let mut rng = context.rng("pauses");
            loop {
                let asked = context.timeout(ms(200), ask(&context, server, byte)).await;
                context.note(format_args!("{}: {}", context.new_id(), matches!(asked, Ok(Ok(())))));
                let pause = rand_chacha::rand_core::Rng::next_u32(&mut rng) % 20;
                context.sleep(ms(pause.into())).await;
                // Not biased: tokio draws which of the two it looks at first.
                tokio::select! {
                    () = context.sleep(ms(3)) => context.note(format_args!("left")),
                    () = context.sleep(ms(3)) => context.note(format_args!("right")),
                }
            }
        });
    }
    let cut = both_ways(hold("client-0", "server-1"));
    let heal = both_ways(release("client-0", "server-1"));
    for _ in 0..3 {
        stage.pass(300);
        stage.change(&cut).expect("every engine can");
        stage.pass(300);
        stage.change(&heal).expect("every engine can");
        stage.change(&[kill("server-2")]).expect("every engine can");
        stage.pass(300);
        stage.change(&[restart("server-2")]).expect("every engine can");
    }
    (stage.digest.hash(), stage.digest.events())
}

pub(crate) fn the_same_seed_is_the_same_run(engine: Engine) -> Outcome {
    let (hash, events) = busy_run(engine, 11, false);
    assert!(events > 200, "only {events} events");
    assert_eq!(busy_run(engine, 11, false), (hash, events));
    assert_ne!(busy_run(engine, 12, false).0, hash);
    Ok(())
}

pub(crate) fn one_other_byte_on_the_wire_is_another_run(engine: Engine) -> Outcome {
    assert_ne!(busy_run(engine, 11, false).0, busy_run(engine, 11, true).0);
    Ok(())
}

pub(crate) fn worlds_on_several_threads_do_not_disturb_each_other(engine: Engine) -> Outcome {
    let alone: Vec<_> = (0..4).map(|seed| busy_run(engine, seed, false)).collect();
    #[expect(clippy::disallowed_methods, reason = "seeds run in parallel, a thread each")]
    let together: Vec<_> = std::thread::scope(|scope| {
        let runs: Vec<_> = (0..4).map(|seed| scope.spawn(move || busy_run(engine, seed, false))).collect();
        runs.into_iter().map(|run| run.join().expect("the run ends well")).collect()
    });
    assert_eq!(alone, together);
    Ok(())
}

pub(crate) fn a_thread_can_have_many_worlds_one_after_the_other(engine: Engine) -> Outcome {
    for seed in 0..300 {
        let mut stage = Stage::with(engine, Seed(seed), LatencyRange::millis(1, 5));
        stage.host("server", echo);
        stage.host("client", |context, log| async move {
            let mut stream = connect(&context, "server").await;
            ping(&mut stream).await.expect("the server is there");
            log.say(&context, "done");
            context.sleep(ms(1_000)).await;
        });
        stage.pass(40);
        assert!(stage.log.has("done"));
    }
    Ok(())
}

/// Says the hash in a line that [`another_process_has_the_same_hash`] reads.
pub(crate) fn says_its_hash(engine: Engine) -> Outcome {
    println!("hash of {engine}: {:?}", busy_run(engine, 21, false));
    Ok(())
}

pub(crate) fn another_process_has_the_same_hash(engine: Engine) -> Outcome {
    let this = std::env::current_exe().expect("a test has a file");
    let name = format!("{engine}::says_its_hash");
    let child = Command::new(this).args(["--exact", &name, "--nocapture"]).output().expect("the child runs");
    let said = String::from_utf8_lossy(&child.stdout);
    let expected = format!("hash of {engine}: {:?}", busy_run(engine, 21, false));
    assert!(said.contains(&expected), "not `{expected}` but: {said}");
    Ok(())
}

pub(crate) fn what_arrives_and_what_is_changed_is_recorded(engine: Engine) -> Outcome {
    struct Keep(std::sync::Mutex<Vec<String>>);
    impl context::Recorder for Keep {
        fn record(&self, event: context::Event<'_>) {
            let line = format!("{} {} {}", event.host, event.kind.word(), event.text);
            let line = if event.kind == EventKind::Frame && !event.bytes.is_empty() {
                format!("{line}: {}", String::from_utf8_lossy(event.bytes))
            } else {
                line
            };
            self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(line);
        }
    }
    let keep = Arc::new(Keep(std::sync::Mutex::default()));
    let latency = LatencyRange::millis(1, 1);
    let config = world::WorldConfig { seed: Seed(1), latency, recorder: keep.clone() };
    let mut world = world::build(engine, config).expect("ready");
    world.add_host("server", context::program(|context| echo(context, Log::default())));
    world.add_host(
        "client",
        context::program(|context| async move {
            let mut stream = connect(&context, "server").await;
            stream.write_all(b"hello").await.expect("the server is there");
            context.sleep(ms(1_000)).await;
        }),
    );
    world.run_until(world.now() + ms(100));
    world.change(&kill("server"))?;
    let lines = keep.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    for expected in [
        "server fault start server",
        "client fault start client",
        "server frame server:7 <- client 5 B: hello",
        "server fault kill server",
    ] {
        assert!(lines.iter().any(|line| line == expected), "`{expected}` is missing: {lines:#?}");
    }
    Ok(())
}
