//! What a stream between two hosts does.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use world::Engine;

use crate::stage::*;

/// Bytes that a wrong order would show.
fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 31 % 251) as u8).collect()
}

const MEGABYTE: usize = 1 << 20;

pub(crate) fn what_is_sent_comes_back_after_the_latency_of_both_ways(engine: Engine) -> Outcome {
    let mut stage = Stage::new(engine);
    stage.host("server", echo);
    stage.host("client", |context, log| async move {
        context.sleep(ms(10)).await;
        let mut stream = connect(&context, "server").await;
        let connected = context.now();
        for _ in 0..10 {
            ping(&mut stream).await.expect("the server is there");
        }
        let each = context.now().since(connected) / 10;
        assert!((ms(4)..=ms(6)).contains(&each), "2 ms there, 2 ms back, not {each:?}");
        log.say(&context, "done");
    });
    stage.pass(200);
    assert!(stage.log.has("done"));
    Ok(())
}

pub(crate) fn a_megabyte_each_way_arrives_whole_and_in_order(engine: Engine) -> Outcome {
    let mut stage = Stage::new(engine);
    let exchange = |stream: context::BoxStream| async move {
        let (mut reading, mut writing) = tokio::io::split(stream);
        let mut read = vec![0; MEGABYTE];
        let sent = pattern(MEGABYTE);
        let (written, got) = tokio::join!(writing.write_all(&sent), reading.read_exact(&mut read));
        written.expect("written");
        got.expect("read");
        assert!(read == pattern(MEGABYTE), "the bytes differ");
    };
    stage.host("server", move |context, log| async move {
        let mut listener = listen(&context).await;
        let (stream, peer) = listener.accept().await.expect("a client comes");
        assert_eq!(peer, "client");
        exchange(stream).await;
        log.say(&context, "server done");
        context.sleep(ms(1_000)).await;
    });
    stage.host("client", move |context, log| async move {
        exchange(connect(&context, "server").await).await;
        log.say(&context, "client done");
        context.sleep(ms(1_000)).await;
    });
    stage.pass(1_000);
    assert!(stage.log.has("server done") && stage.log.has("client done"), "{:?}", stage.log.lines());
    Ok(())
}

pub(crate) fn small_reads_after_a_pause_do_not_stall_the_writer(engine: Engine) -> Outcome {
    let mut stage = Stage::new(engine);
    stage.host("server", |context, log| async move {
        let mut listener = listen(&context).await;
        let (mut stream, _) = listener.accept().await.expect("a client comes");
        stream.write_all(&pattern(MEGABYTE)).await.expect("written");
        log.say(&context, "written");
        context.sleep(ms(60_000)).await;
    });
    stage.host("client", |context, log| async move {
        let mut stream = connect(&context, "server").await;
        context.sleep(ms(1_000)).await;
        log.say(&context, "reads");
        let mut read = Vec::new();
        let mut piece = [0; 1_000];
        while read.len() < MEGABYTE {
            let count = stream.read(&mut piece).await.expect("the server is there");
            read.extend_from_slice(&piece[..count]);
        }
        assert!(read == pattern(MEGABYTE), "the bytes differ");
        log.say(&context, "read");
        context.sleep(ms(60_000)).await;
    });
    stage.pass(20_000);
    assert!(stage.log.has("written") && stage.log.has("read"));
    Ok(())
}

pub(crate) fn a_writer_waits_for_its_reader(engine: Engine) -> Outcome {
    let mut stage = Stage::new(engine);
    stage.host("server", |context, _| async move {
        let mut listener = listen(&context).await;
        let (mut stream, _) = listener.accept().await.expect("a client comes");
        context.sleep(ms(5_000)).await;
        tokio::io::copy(&mut stream, &mut tokio::io::sink()).await.expect("all bytes");
    });
    stage.host("client", |context, log| async move {
        let mut stream = connect(&context, "server").await;
        stream.write_all(&pattern(MEGABYTE)).await.expect("written");
        log.say(&context, "written");
        context.sleep(ms(10_000)).await;
    });
    stage.pass(6_000);
    assert!(stage.log.when("written") > 5_000, "the writer has waited");
    Ok(())
}

pub(crate) fn an_end_of_file_leaves_the_other_direction_open(engine: Engine) -> Outcome {
    let mut stage = Stage::new(engine);
    stage.host("server", |context, log| async move {
        let mut listener = listen(&context).await;
        let (mut stream, _) = listener.accept().await.expect("a client comes");
        let mut question = String::new();
        stream.read_to_string(&mut question).await.expect("text");
        log.say(&context, format!("asked {question}"));
        stream.write_all(b"answer").await.expect("written");
        stream.shutdown().await.expect("closed");
        context.sleep(ms(1_000)).await;
    });
    stage.host("client", |context, log| async move {
        let mut stream = connect(&context, "server").await;
        stream.write_all(b"question").await.expect("written");
        stream.shutdown().await.expect("closed");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("text");
        log.say(&context, format!("got {answer}"));
        context.sleep(ms(1_000)).await;
    });
    stage.pass(500);
    assert_eq!(stage.log.lines(), ["asked question", "got answer"]);
    Ok(())
}

pub(crate) fn a_host_can_talk_to_itself(engine: Engine) -> Outcome {
    let mut stage = Stage::new(engine);
    stage.host("alone", |context, log| async move {
        context.spawn("serve", echo(context.clone(), log.clone()));
        context.sleep(ms(5)).await;
        let mut stream = connect(&context, "alone").await;
        ping(&mut stream).await.expect("it is there");
        log.say(&context, "done");
        context.sleep(ms(1_000)).await;
    });
    stage.pass(100);
    assert!(stage.log.has("done"));
    Ok(())
}

pub(crate) fn a_connect_is_refused_where_nobody_listens_and_fails_where_nobody_is(engine: Engine) -> Outcome {
    let mut stage = Stage::new(engine);
    stage.host("server", |context, _| async move { context.sleep(ms(10_000)).await });
    stage.host("client", |context, log| async move {
        for host in ["server", "nobody"] {
            let error = context.connect(host, PORT).await.err().expect("nobody listens");
            log.say(&context, format!("{host}: {:?}", error.kind()));
        }
        context.sleep(ms(10_000)).await;
    });
    stage.pass(100);
    assert_eq!(stage.log.lines(), ["server: ConnectionRefused", "nobody: NotFound"]);
    Ok(())
}

pub(crate) fn a_port_is_taken_once_and_free_again_when_its_listener_goes(engine: Engine) -> Outcome {
    let mut stage = Stage::new(engine);
    stage.host("server", |context, log| async move {
        let mut listener = listen(&context).await;
        let error = context.listen(PORT).await.err().expect("the port is taken");
        log.say(&context, format!("{:?}", error.kind()));
        let other = context.listen(0).await.expect("there are free ports");
        assert_ne!(other.port(), 0);
        // A connection of the first listener stays open while the second listens.
        let (kept, _) = listener.accept().await.expect("a client comes");
        drop(listener);
        let mut again = listen(&context).await;
        again.accept().await.expect("a client comes");
        log.say(&context, "accepted again");
        context.sleep(ms(10_000)).await;
        drop(kept);
    });
    stage.host("client", |context, _| async move {
        context.sleep(ms(10)).await;
        let _first = connect(&context, "server").await;
        context.sleep(ms(50)).await;
        let _second = connect(&context, "server").await;
        context.sleep(ms(10_000)).await;
    });
    stage.pass(200);
    assert_eq!(stage.log.lines(), ["AddrInUse", "accepted again"]);
    Ok(())
}

pub(crate) fn one_who_writes_to_a_closed_connection_is_told_so(engine: Engine) -> Outcome {
    let mut stage = Stage::new(engine);
    stage.host("server", |context, _| async move {
        let mut listener = listen(&context).await;
        drop(listener.accept().await.expect("a client comes"));
        context.sleep(ms(10_000)).await;
    });
    stage.host("client", |context, log| async move {
        let mut stream = connect(&context, "server").await;
        context.sleep(ms(50)).await;
        // It never reads, so it does not see the end of file.
        for _ in 0..10 {
            if let Err(error) = stream.write_all(&[0; 100]).await {
                log.say(&context, format!("{:?}", error.kind()));
                break;
            }
            context.sleep(ms(50)).await;
        }
        context.sleep(ms(10_000)).await;
    });
    stage.pass(1_000);
    let said = stage.log.lines();
    assert!(["ConnectionReset", "BrokenPipe"].iter().any(|kind| said == [*kind]), "{said:?}");
    Ok(())
}
