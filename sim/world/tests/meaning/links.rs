//! What a held or slowed link does.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use world::{Change, Engine, LatencyRange};

use crate::stage::*;

pub(crate) fn a_partition_holds_bytes_and_connects_until_it_heals(engine: Engine) -> Outcome {
    let mut stage = Stage::new(engine);
    stage.host("server", echo);
    stage.host("client", |context, log| async move {
        let mut stream = connect(&context, "server").await;
        ping(&mut stream).await.expect("the server is there");
        context.sleep(ms(150)).await;
        log.say(&context, "speaks");
        ping(&mut stream).await.expect("nothing is lost");
        log.say(&context, "answered");
        context.sleep(ms(100_000)).await;
    });
    stage.host("newcomer", |context, log| async move {
        context.sleep(ms(150)).await;
        log.say(&context, "calls");
        let mut stream = connect(&context, "server").await;
        ping(&mut stream).await.expect("the server is there");
        log.say(&context, "talks");
        context.sleep(ms(100_000)).await;
    });
    stage.pass(100);
    let cut = [both_ways(hold("client", "server")), both_ways(hold("newcomer", "server"))].concat();
    stage.change(&cut)?;
    stage.pass(5_000);
    let mut before = stage.log.lines();
    before.sort();
    assert_eq!(before, ["calls", "speaks"]);

    let heal = [both_ways(release("client", "server")), both_ways(release("newcomer", "server"))].concat();
    stage.change(&heal)?;
    stage.pass(50);
    assert!(
        stage.log.when("answered") <= 5_115 && stage.log.when("talks") <= 5_115,
        "{:?}",
        stage.log.timed()
    );
    assert!(stage.world.link("client", "server").held > 0);
    Ok(())
}

pub(crate) fn a_partition_does_not_touch_other_links(engine: Engine) -> Outcome {
    let mut stage = Stage::new(engine);
    stage.host("server", echo);
    stage.host("cut", echo);
    stage.host("client", |context, log| async move {
        let mut stream = connect(&context, "server").await;
        for _ in 0..20 {
            ping(&mut stream).await.expect("the server is there");
            context.sleep(ms(10)).await;
        }
        log.say(&context, "done");
        context.sleep(ms(100_000)).await;
    });
    stage.pass(20);
    stage.change(&both_ways(hold("cut", "server")))?;
    stage.pass(500);
    assert!(stage.log.has("done"));
    assert_eq!(stage.world.link("client", "server").held, 0);
    Ok(())
}

pub(crate) fn a_one_way_hold_lets_the_other_direction_flow(engine: Engine) -> Outcome {
    let mut stage = Stage::new(engine);
    stage.host("server", |context, log| async move {
        let mut listener = listen(&context).await;
        let (stream, _) = listener.accept().await.expect("a client comes");
        let (mut reading, mut writing) = tokio::io::split(stream);
        let speaking = context.clone();
        context.spawn("speak", async move {
            loop {
                speaking.sleep(ms(100)).await;
                writing.write_all(b"s").await.expect("the client is there");
            }
        });
        loop {
            reading.read_u8().await.expect("the client is there");
            log.say(&context, "server heard");
        }
    });
    stage.host("client", |context, log| async move {
        let stream = connect(&context, "server").await;
        let (mut reading, mut writing) = tokio::io::split(stream);
        let speaking = context.clone();
        context.spawn("speak", async move {
            loop {
                speaking.sleep(ms(100)).await;
                writing.write_all(b"c").await.expect("the server is there");
            }
        });
        loop {
            reading.read_u8().await.expect("the server is there");
            log.say(&context, "client heard");
        }
    });
    stage.pass(50);
    stage.change(&[hold("client", "server")])?;
    stage.pass(1_000);
    let heard =
        |stage: &Stage, who: &str| stage.log.lines().iter().filter(|line| line.starts_with(who)).count();
    assert_eq!(heard(&stage, "server"), 0);
    assert!(heard(&stage, "client") >= 9);
    stage.change(&[release("client", "server")])?;
    stage.pass(10);
    assert!(heard(&stage, "server") >= 9, "all that was held arrives");
    Ok(())
}

pub(crate) fn a_slowed_link_is_slow_in_its_direction_only(engine: Engine) -> Outcome {
    let mut stage = Stage::new(engine);
    stage.host("server", |context, log| async move {
        let mut listener = listen(&context).await;
        let (mut stream, _) = listener.accept().await.expect("a client comes");
        loop {
            stream.read_u8().await.expect("the client is there");
            log.say(&context, "asked");
            stream.write_all(b"x").await.expect("the client is there");
        }
    });
    stage.host("client", |context, log| async move {
        let mut stream = connect(&context, "server").await;
        for round in 0..3 {
            context.sleep(ms(1_000)).await;
            log.say(&context, format!("ask {round}"));
            ping(&mut stream).await.expect("the server is there");
            log.say(&context, format!("answer {round}"));
        }
        context.sleep(ms(100_000)).await;
    });
    stage.pass(500);
    stage.change(&[slow("client", "server", 50)])?;
    stage.pass(1_000);
    let (asked, answered) = (stage.log.when("asked"), stage.log.when("answer 0"));
    assert_eq!((asked - stage.log.when("ask 0"), answered - asked), (50, 2));
    assert!(stage.world.link("client", "server").slowed > 0);
    assert_eq!(stage.world.link("server", "client").slowed, 0);

    stage.change(&[Change::Latency { from: "client".into(), to: "server".into(), range: None }])?;
    stage.pass(1_000);
    assert_eq!(stage.log.when("answer 1") - stage.log.when("ask 1"), 4, "the world's own again");
    Ok(())
}

pub(crate) fn a_link_slowed_both_ways_slows_each_answer(engine: Engine) -> Outcome {
    let mut stage = Stage::new(engine);
    stage.host("server", echo);
    stage.host("client", |context, log| async move {
        let mut stream = connect(&context, "server").await;
        context.sleep(ms(200)).await;
        let asked = context.now();
        ping(&mut stream).await.expect("the server is there");
        let took = context.now().since(asked);
        assert!((ms(80)..=ms(83)).contains(&took), "40 ms there, 40 ms back, not {took:?}");
        log.say(&context, "done");
        context.sleep(ms(100_000)).await;
    });
    stage.pass(100);
    stage.change(&both_ways(slow("client", "server", 40)))?;
    stage.pass(500);
    assert!(stage.log.has("done"));
    Ok(())
}

pub(crate) fn bytes_keep_their_order_when_a_slow_link_becomes_fast(engine: Engine) -> Outcome {
    let mut stage = Stage::new(engine);
    stage.host("server", |context, log| async move {
        let mut listener = listen(&context).await;
        let (mut stream, _) = listener.accept().await.expect("a client comes");
        for expected in 0..=255 {
            assert_eq!(stream.read_u8().await.expect("the client is there"), expected);
        }
        log.say(&context, "all in order");
        context.sleep(ms(100_000)).await;
    });
    stage.host("client", |context, _| async move {
        let mut stream = connect(&context, "server").await;
        for byte in 0..=255 {
            stream.write_all(&[byte]).await.expect("the server is there");
            context.sleep(ms(1)).await;
        }
        context.sleep(ms(100_000)).await;
    });
    let spread = |min, max| Change::Latency {
        from: "client".into(),
        to: "server".into(),
        range: Some(LatencyRange::millis(min, max)),
    };
    for step in 0..20 {
        let change = if step % 2 == 0 { spread(20, 60) } else { spread(0, 1) };
        stage.change(&both_ways(change))?;
        stage.pass(13);
    }
    stage.pass(1_000);
    assert!(stage.log.has("all in order"));
    Ok(())
}

/// A server that says whom it accepted, and a client that waits 200 ms for it.
fn stage_with_impatient_client(engine: Engine) -> Stage {
    let mut stage = Stage::new(engine);
    stage.host("server", |context, log| async move {
        let mut listener = listen(&context).await;
        loop {
            let (_, peer) = listener.accept().await.expect("a listener goes on");
            log.say(&context, format!("accepted {peer}"));
        }
    });
    stage.host("client", |context, log| async move {
        context.sleep(ms(50)).await;
        let connected = context.timeout(ms(200), context.connect("server", PORT)).await;
        log.say(&context, format!("connected: {}", connected.is_ok()));
        context.sleep(ms(100_000)).await;
    });
    stage.pass(10);
    stage
}

pub(crate) fn one_who_gave_up_connecting_is_not_heard_of_after_the_heal(engine: Engine) -> Outcome {
    let mut stage = stage_with_impatient_client(engine);
    stage.change(&both_ways(hold("client", "server")))?;
    stage.pass(500);
    stage.change(&both_ways(release("client", "server")))?;
    stage.pass(500);
    assert_eq!(stage.log.lines(), ["connected: false"]);
    Ok(())
}

pub(crate) fn one_who_never_heard_that_it_was_connected_is_not_accepted(engine: Engine) -> Outcome {
    let mut stage = stage_with_impatient_client(engine);
    stage.change(&[hold("server", "client")])?;
    stage.pass(500);
    stage.change(&[release("server", "client")])?;
    stage.pass(500);
    assert_eq!(stage.log.lines(), ["connected: false"]);
    Ok(())
}

pub(crate) fn handshakes_that_broke_leave_nothing_in_the_way_of_a_restart(engine: Engine) -> Outcome {
    let mut stage = Stage::new(engine);
    stage.host("server", echo);
    stage.host("client", |context, log| async move {
        loop {
            // Half of these give up while the server's answer is held.
            let connected = context.timeout(ms(40), context.connect("server", PORT)).await;
            log.say(&context, format!("connected: {}", matches!(connected, Ok(Ok(_)))));
            context.sleep(ms(40)).await;
        }
    });
    for _ in 0..30 {
        stage.change(&[hold("server", "client")])?;
        stage.pass(100);
        stage.change(&[release("server", "client")])?;
        stage.pass(100);
        stage.change(&[kill("server")])?;
        stage.pass(10);
        stage.change(&[restart("server")])?;
    }
    stage.pass(100);
    let lines = stage.log.lines();
    assert_eq!(lines.last().map(String::as_str), Some("connected: true"));
    assert!(lines.iter().filter(|line| *line == "connected: false").count() >= 30);
    Ok(())
}
