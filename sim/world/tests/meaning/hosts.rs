//! What a host and its tasks do, and what its peers see when it dies, loses power, stops, and comes back.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use world::{Engine, Refusal};

use crate::stage::*;

pub(crate) fn a_kill_closes_connections_and_refuses_new_ones(engine: Engine) -> Outcome {
    let mut stage = Stage::new(engine);
    stage.host("server", echo);
    stage.host("client", |context, log| async move {
        let mut stream = connect(&context, "server").await;
        ping(&mut stream).await.expect("the server is there");
        log.say(&context, "connected");
        log.say(&context, outcome(stream.read(&mut [0]).await));
        let error = context.connect("server", PORT).await.err().expect("nobody listens");
        log.say(&context, format!("{:?}", error.kind()));
        context.sleep(ms(10_000)).await;
    });
    stage.pass(100);
    assert_eq!(stage.log.lines(), ["connected"]);
    stage.change(&[kill("server")])?;
    stage.pass(100);
    assert_eq!(stage.log.lines(), ["connected", "end", "ConnectionRefused"]);
    assert!(stage.log.when("ConnectionRefused") < 120, "a machine that is up refuses at once");

    let stats = stage.stats("server");
    assert!(!stats.running);
    assert_eq!((stats.tasks_killed, stats.connections_cut), (2, 1));
    Ok(())
}

pub(crate) fn a_restarted_host_listens_again_while_old_connections_linger(engine: Engine) -> Outcome {
    let mut stage = Stage::new(engine);
    stage.host("server", |context, log| async move {
        log.say(&context, format!("incarnation {}", context.incarnation()));
        echo(context, log).await;
    });
    stage.host("client", |context, log| async move {
        // It opens one connection after the other, and closes none.
        let mut kept = Vec::new();
        loop {
            if let Ok(mut stream) = context.connect("server", PORT).await
                && ping(&mut stream).await.is_ok()
            {
                kept.push(stream);
                log.say(&context, "connected");
            }
            context.sleep(ms(40)).await;
        }
    });
    let rounds = 30;
    for _ in 0..rounds {
        stage.pass(100);
        stage.change(&[kill("server")])?;
        stage.pass(10);
        stage.change(&[restart("server")])?;
    }
    stage.pass(100);
    let lines = stage.log.lines();
    let per_incarnation: Vec<&[String]> =
        lines.split(|line| line.starts_with("incarnation")).skip(1).collect();
    assert_eq!(per_incarnation.len(), rounds + 1);
    assert!(per_incarnation.iter().all(|lines| !lines.is_empty()), "each incarnation was reached: {lines:?}");
    assert_eq!(stage.stats("server").incarnation, rounds as u64);
    Ok(())
}

pub(crate) fn a_power_loss_is_silence_and_a_restart_resets_whoever_has_spoken(engine: Engine) -> Outcome {
    let mut stage = Stage::new(engine);
    stage.host("server", echo);
    stage.host("speaker", |context, log| async move {
        let mut stream = connect(&context, "server").await;
        ping(&mut stream).await.expect("the server is there");
        context.sleep(ms(200)).await;
        stream.write_all(b"anyone there").await.expect("the kernel takes it");
        log.say(&context, format!("speaker: {}", outcome(stream.read(&mut [0]).await)));
        context.sleep(ms(100_000)).await;
    });
    stage.host("listener", |context, log| async move {
        let mut stream = connect(&context, "server").await;
        ping(&mut stream).await.expect("the server is there");
        let heard = stream.read(&mut [0]).await;
        log.say(&context, format!("listener: {}", outcome(heard)));
    });
    stage.host("newcomer", |context, log| async move {
        context.sleep(ms(250)).await;
        log.say(&context, "newcomer calls");
        let mut stream = connect(&context, "server").await;
        ping(&mut stream).await.expect("the server is there");
        log.say(&context, "newcomer talks");
        context.sleep(ms(100_000)).await;
    });
    stage.pass(100);
    stage.change(&[power_off("server")])?;
    stage.pass(10_000);
    assert_eq!(stage.log.lines(), ["newcomer calls"], "silence");
    assert!(stage.world.link("speaker", "server").unheard > 0);

    stage.change(&[restart("server")])?;
    stage.pass(1_000);
    let mut lines = stage.log.lines();
    lines.sort();
    assert_eq!(lines, ["newcomer calls", "newcomer talks", "speaker: ConnectionReset"]);
    assert_eq!(stage.stats("server").connections_cut, 2);
    Ok(())
}

pub(crate) fn a_machine_whose_process_was_killed_can_still_lose_its_power(engine: Engine) -> Outcome {
    let mut stage = Stage::new(engine);
    stage.host("server", echo);
    stage.host("newcomer", |context, log| async move {
        context.sleep(ms(250)).await;
        log.say(&context, "newcomer calls");
        // Refused by a machine that is up; without power nobody says so.
        let mut stream = context.connect("server", PORT).await.expect("the machine comes back");
        ping(&mut stream).await.expect("the server is there");
        log.say(&context, "newcomer talks");
        context.sleep(ms(100_000)).await;
    });
    stage.pass(100);
    stage.change(&[kill("server")])?;
    stage.pass(100);
    let killed = stage.stats("server").tasks_killed;
    stage.change(&[power_off("server")])?;
    stage.pass(10_000);
    assert_eq!(stage.log.lines(), ["newcomer calls"], "silence");
    assert_eq!(stage.stats("server").tasks_killed, killed, "there was nobody left to kill");
    stage.change(&[restart("server")])?;
    stage.pass(2_000);
    assert_eq!(stage.log.lines(), ["newcomer calls", "newcomer talks"]);
    Ok(())
}

pub(crate) fn bytes_sent_before_a_power_loss_arrive_and_their_reader_hears_no_more(
    engine: Engine,
) -> Outcome {
    let mut stage = Stage::new(engine);
    stage.host("server", |context, _| async move {
        let mut listener = listen(&context).await;
        let (mut stream, _) = listener.accept().await.expect("a client comes");
        stream.write_all(b"last words").await.expect("written");
        context.sleep(ms(10_000)).await;
    });
    stage.host("client", |context, log| async move {
        let mut stream = connect(&context, "server").await;
        log.say(&context, "connected");
        let mut words = [0; 10];
        stream.read_exact(&mut words).await.expect("they are on their way");
        log.say(&context, String::from_utf8_lossy(&words));
        // Its kernel has acknowledged them to a machine that is dark; that is not said twice.
        let more = stream.read(&mut words).await;
        log.say(&context, outcome(more));
    });
    // The handshake takes 2 + 2 ms; the server hears of it after another 2, and speaks.
    stage.pass(6);
    let said = stage.log.lines();
    stage.change(&[power_off("server")])?;
    assert_eq!(said, ["connected"]);
    stage.pass(1_000);
    stage.change(&[restart("server")])?;
    stage.pass(1_000);
    assert_eq!(stage.log.lines(), ["connected", "last words"]);
    Ok(())
}

pub(crate) fn a_machine_that_loses_power_with_bytes_unread_says_nothing(engine: Engine) -> Outcome {
    let mut stage = Stage::new(engine);
    stage.host("server", |context, _| async move {
        let mut listener = listen(&context).await;
        let _kept = listener.accept().await.expect("a client comes");
        // Killed, it would reset the connection: it has not read what its kernel has acknowledged.
        context.sleep(ms(10_000)).await;
    });
    stage.host("client", |context, log| async move {
        let mut stream = connect(&context, "server").await;
        stream.write_all(b"unread").await.expect("written");
        log.say(&context, "written");
        log.say(&context, outcome(stream.read(&mut [0]).await));
        context.sleep(ms(10_000)).await;
    });
    stage.pass(100);
    stage.change(&[power_off("server")])?;
    stage.pass(1_000);
    assert_eq!(stage.log.lines(), ["written"]);
    Ok(())
}

pub(crate) fn a_paused_host_runs_nothing_while_its_machine_takes_bytes(engine: Engine) -> Outcome {
    let mut stage = Stage::new(engine);
    stage.host("server", |context, log| async move {
        let mut listener = listen(&context).await;
        let ticking = (context.clone(), log.clone());
        context.spawn("tick", async move {
            let (context, log) = ticking;
            loop {
                context.sleep(ms(100)).await;
                log.say(&context, "tick");
            }
        });
        let (mut stream, _) = listener.accept().await.expect("a client comes");
        let mut buffer = vec![0; 100_000];
        stream.read_exact(&mut buffer).await.expect("all bytes");
        log.say(&context, "server has read");
        context.sleep(ms(10_000)).await;
    });
    stage.host("client", |context, log| async move {
        let mut stream = connect(&context, "server").await;
        context.sleep(ms(300)).await;
        // More than the sender's kernel keeps by itself: the receiver's has acknowledged some.
        stream.write_all(&vec![0; 100_000]).await.expect("written");
        log.say(&context, "written");
        let mut late = connect(&context, "server").await;
        log.say(&context, "connected");
        late.write_all(b"x").await.expect("written");
        context.sleep(ms(10_000)).await;
    });
    stage.pass(250);
    stage.change(&[pause("server")])?;
    assert!(stage.stats("server").paused && stage.stats("server").running);
    stage.pass(5_000);
    assert_eq!(stage.log.lines(), ["tick", "tick", "written", "connected"]);
    assert!(stage.stats("server").wakes_deferred >= 2, "a timer and a read");

    stage.change(&[resume("server")])?;
    stage.pass(60);
    let resumed = 5_250;
    assert_eq!(stage.log.timed()[4..].iter().filter(|(at, _)| *at == resumed).count(), 1, "one late tick");
    assert!(stage.log.has("server has read"));
    assert!(!stage.stats("server").paused);
    Ok(())
}

pub(crate) fn a_paused_host_can_be_killed_and_restarted(engine: Engine) -> Outcome {
    let mut stage = Stage::new(engine);
    stage.host("server", |context, log| async move {
        log.say(&context, format!("incarnation {}", context.incarnation()));
        context.sleep(ms(100)).await;
        log.say(&context, "slept");
    });
    stage.pass(50);
    stage.change(&[pause("server")])?;
    stage.pass(500);
    stage.change(&[kill("server")])?;
    stage.pass(500);
    stage.change(&[restart("server")])?;
    stage.pass(500);
    assert_eq!(stage.log.lines(), ["incarnation 0", "incarnation 1", "slept"]);
    Ok(())
}

pub(crate) fn a_kill_drops_every_task_of_its_host_and_no_other(engine: Engine) -> Outcome {
    struct Told(Arc<AtomicU64>);
    impl Drop for Told {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
    let dropped = Arc::new(AtomicU64::new(0));
    let mut stage = Stage::new(engine);
    for name in ["victim", "bystander"] {
        let dropped = dropped.clone();
        stage.host(name, move |context, log| {
            let dropped = dropped.clone();
            async move {
                for _ in 0..5 {
                    let (held, waiting) = (Told(dropped.clone()), context.clone());
                    context.spawn("wait", async move {
                        waiting.sleep(ms(1_000)).await;
                        drop(held);
                    });
                }
                context.sleep(ms(500)).await;
                log.say(&context, context.name());
                context.sleep(ms(1_000)).await;
            }
        });
    }
    stage.pass(100);
    stage.change(&[kill("victim")])?;
    assert_eq!(dropped.load(Ordering::Relaxed), 5, "dropped at once");
    stage.pass(500);
    assert_eq!(stage.log.lines(), ["bystander"]);
    assert_eq!(stage.stats("victim").tasks_killed, 6);
    Ok(())
}

pub(crate) fn what_a_dying_task_starts_does_not_run(engine: Engine) -> Outcome {
    struct Heir(context::Context, Log);
    impl Drop for Heir {
        fn drop(&mut self) {
            let (context, log) = (self.0.clone(), self.1.clone());
            self.0.spawn("heir", async move { log.say(&context, "the heir runs") });
        }
    }
    let mut stage = Stage::new(engine);
    stage.host("victim", |context, log| async move {
        let _heir = Heir(context.clone(), log);
        context.sleep(ms(10_000)).await;
    });
    stage.pass(100);
    stage.change(&[kill("victim")])?;
    stage.pass(100);
    stage.change(&[restart("victim")])?;
    stage.pass(100);
    assert_eq!(stage.log.lines(), [""; 0]);
    Ok(())
}

pub(crate) fn an_aborted_task_ends_at_its_next_await(engine: Engine) -> Outcome {
    let mut stage = Stage::new(engine);
    stage.host("host", |context, log| async move {
        let (ticking, said) = (context.clone(), log.clone());
        let task = context.spawn("tick", async move {
            loop {
                ticking.sleep(ms(10)).await;
                said.say(&ticking, "tick");
            }
        });
        context.sleep(ms(35)).await;
        task.abort();
        assert_eq!(task.await, None::<()>);
        log.say(&context, "aborted");
        // An ended task can be aborted too.
        let ended = context.spawn("end", async {});
        context.sleep(ms(10)).await;
        ended.abort();
        context.sleep(ms(1_000)).await;
    });
    stage.pass(500);
    assert_eq!(stage.log.lines(), ["tick", "tick", "tick", "aborted"]);
    Ok(())
}

pub(crate) fn a_program_that_ends_leaves_its_tasks_running(engine: Engine) -> Outcome {
    let mut stage = Stage::new(engine);
    stage.host("server", |context, log| async move {
        context.spawn("serve", echo(context.clone(), log));
    });
    stage.host("client", |context, log| async move {
        context.sleep(ms(50)).await;
        let mut stream = connect(&context, "server").await;
        ping(&mut stream).await.expect("the server is there");
        log.say(&context, "done");
    });
    stage.pass(500);
    assert!(stage.log.has("done"));
    assert!(stage.stats("server").running && stage.stats("client").running);
    Ok(())
}

pub(crate) fn no_wake_is_lost_among_many_tasks(engine: Engine) -> Outcome {
    let mut stage = Stage::new(engine);
    stage.host("host", |context, log| async move {
        // A number runs through a chain of a thousand tasks, ten times.
        let (first, mut last) = tokio::sync::mpsc::channel::<u64>(1);
        let mut next = first;
        for at in 0..1_000_u64 {
            let (sender, mut receiver) = tokio::sync::mpsc::channel(1);
            let (into, waiting) = (std::mem::replace(&mut next, sender), context.clone());
            context.spawn("link", async move {
                while let Some(number) = receiver.recv().await {
                    if at % 97 == 0 {
                        waiting.sleep(ms(1)).await;
                    }
                    if at % 13 == 0 {
                        tokio::task::yield_now().await;
                    }
                    if into.send(number + 1).await.is_err() {
                        return;
                    }
                }
            });
        }
        for _ in 0..10 {
            next.send(0).await.expect("the chain is there");
            assert_eq!(last.recv().await, Some(1_000));
        }
        log.say(&context, "done");
    });
    stage.pass(1_000);
    assert!(stage.log.has("done"));
    Ok(())
}

pub(crate) fn a_panic_of_a_task_ends_the_run(engine: Engine) -> Outcome {
    for in_task in [false, true] {
        let mut stage = Stage::new(engine);
        stage.host("other", echo);
        stage.host("host", move |context, _| async move {
            context.sleep(ms(50)).await;
            if in_task {
                context.spawn("doomed", async { panic!("a bug was met") });
                context.sleep(ms(1_000)).await;
            } else {
                panic!("a bug was met");
            }
        });
        stage.pass(40);
        let run = std::panic::AssertUnwindSafe(|| stage.pass(100));
        let panic = std::panic::catch_unwind(run).expect_err("the panic passes through");
        let message = panic.downcast_ref::<String>().map_or("not a text", String::as_str);
        let task = if in_task { "doomed" } else { "main" };
        for part in ["a bug was met", "host#0", &format!("`{task}`")] {
            assert!(message.contains(part), "`{part}` is missing in: {message}");
        }
    }
    // Nothing of those worlds is left on this thread.
    what_the_thread_can_do_next(engine);
    Ok(())
}

fn what_the_thread_can_do_next(engine: Engine) {
    let mut stage = Stage::new(engine);
    stage.host("host", |context, log| async move {
        context.sleep(ms(10)).await;
        log.say(&context, "lives");
    });
    stage.pass(100);
    assert!(stage.log.has("lives"));
}

pub(crate) fn a_change_that_does_not_fit_is_refused_by_name(engine: Engine) -> Outcome {
    let mut stage = Stage::new(engine);
    stage.host("a", echo);
    stage.host("b", echo);
    stage.pass(10);
    let before = stage.digest.events();
    assert_eq!(stage.change(&[kill("c")]), Err(Refusal::NoSuchHost("c".into())));
    let gone = stage.change(&both_ways(hold("a", "c")));
    assert_eq!(gone, Err(Refusal::NoSuchHost("c".into())));
    let refusal = stage.change(&[restart("a")]).unwrap_err();
    assert_eq!(refusal.to_string(), "cannot restart a: the host is running");
    assert_eq!(stage.digest.events(), before, "what is refused leaves no trace");
    stage.change(&[kill("a")])?;
    let refusal = stage.change(&[kill("a")]).unwrap_err();
    assert_eq!(refusal.to_string(), "cannot kill a: the host is down");
    assert_eq!(stage.world.host("c"), None);
    Ok(())
}
