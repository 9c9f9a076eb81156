//! The shell on a runtime of several threads and real sockets, around a node that relays what it is asked to a peer.

use std::collections::VecDeque;

use context::real::RealHost;
use context::{Event, Recorder, Seed};
use tokio::io::AsyncWriteExt as _;

use super::*;
use crate::core::Lane;
use crate::wire::with_length;

const PEER: Link = Link::broker(2, Lane::Forward);

/// Asks its peer what it is asked, and gives each answer to whoever has waited longest, as the cores do.
struct Relay {
    peer: Address,
    waiting: VecDeque<ConnectionId>,
}

impl Node for Relay {
    fn handle(&mut self, _: Timestamp, input: Input, out: &mut Vec<Output>) {
        match input {
            Input::Start { .. } => out.push(Output::Listen),
            Input::Request { connection, frame, .. } => {
                self.waiting.push_back(connection);
                out.push(Output::Note(connection.0.to_string()));
                let (to, patience) = (self.peer.clone(), Duration::from_secs(20));
                out.push(Output::Ask { link: PEER, to, frame, patience });
            }
            Input::Answered { frame, .. } => {
                let connection = self.waiting.pop_front().expect("it has asked");
                let frame = frame.expect("the peer answers");
                out.push(Output::Respond { connection, frame });
            }
            Input::Wake | Input::Shutdown => {}
        }
    }
}

/// Takes longer to hear of some connections than of others: what a thread does after it, another does before.
struct Slow;

impl Recorder for Slow {
    fn record(&self, event: Event<'_>) {
        if event.kind.is_note() && event.text.to_string().parse().is_ok_and(|id: u64| id.is_multiple_of(2)) {
            #[expect(
                clippy::disallowed_methods,
                reason = "holds up one of the runtime's threads on purpose"
            )]
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// A port of this test's own.
fn listener() -> (std::net::TcpListener, u16) {
    #[expect(clippy::disallowed_methods, reason = "the shell is tested on real sockets, too")]
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

/// Answers each frame with itself.
async fn echo(context: Context, port: u16) {
    let mut listener = context.listen(port).await.unwrap();
    let (mut stream, _) = listener.accept().await.unwrap();
    while let Ok(frame) = read_frame(&mut stream, i32::MAX).await {
        stream.write_all(&with_length(&frame)).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn on_many_threads_each_connection_gets_the_answer_to_its_own_question() {
    let (held, port) = listener();
    let (peer, _peer) = RealHost::new("peer", Seed(1)).with_listener(held).unwrap().start();
    peer.spawn("echo", echo(peer.clone(), port));
    let relay = Relay { peer: Address { host: "127.0.0.1".into(), port }, waiting: VecDeque::new() };
    let (held, port) = listener();
    let node = RealHost::new("node", Seed(1)).with_recorder(Arc::new(Slow));
    let (node, _node) = node.with_listener(held).unwrap().start();
    let berth =
        Berth { port, frame_bytes_max: i32::MAX, guests: Guests::new(100, -1), shutdown: Arc::default() };
    node.spawn("node", run(node.clone(), Arc::new(Mutex::new(relay)), berth));

    let client = RealHost::new("client", Seed(1)).into_context();
    let asking = (0..8_u32).map(|asker| {
        let context = client.clone();
        client.spawn("asker", async move {
            let mut stream = context.connect("127.0.0.1", port).await.unwrap();
            for number in 0..50_u32 {
                let question = Bytes::from([asker.to_be_bytes(), number.to_be_bytes()].concat());
                stream.write_all(&with_length(&question)).await.unwrap();
                let answer = read_frame(&mut stream, i32::MAX).await.unwrap();
                assert_eq!(answer, question, "the answer to another question");
            }
        })
    });
    for asker in asking.collect::<Vec<_>>() {
        client.timeout(Duration::from_secs(60), asker).await.expect("all are answered").expect("no panic");
    }
}
