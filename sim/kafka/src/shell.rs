//! The shell around a core: it carries frames, timers and notes between the core and the world, and decides nothing.
//!
//! On a connection one request is handled at a time: the next is read after the answer to the one before went out. What
//! was read is handled even if its connection closes meanwhile.
//!
//! A node takes one input at a time, and the next only when all that the last one brought about is on its way: on a runtime
//! of many threads, too, questions and answers leave in the order in which the core gave them.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use context::{BoxStream, Context, Timestamp};
use tokio::sync::{Notify, mpsc};

use crate::core::{Address, ConnectionId, Input, Link, Output, Peer};
use crate::guests::{Guest, Guests};
use crate::wire::{FrameError, read_frame, write_frame};

/// How soon a connection is accepted after one could not be (out of file descriptors, say).
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);
/// How soon a refused connect to the controller is tried again.
const RECONNECT: Duration = Duration::from_millis(50);

/// A core and its disk.
pub(crate) trait Node: Send {
    fn handle(&mut self, now: Timestamp, input: Input, out: &mut Vec<Output>);
}

/// Where and how a node runs.
pub(crate) struct Berth {
    pub(crate) port: u16,
    pub(crate) frame_bytes_max: i32,
    /// Who may come in.
    pub(crate) guests: Guests,
    /// Whoever runs the node asks it to end.
    pub(crate) shutdown: Arc<Notify>,
}

/// A request to a peer on its way to its link.
struct Question {
    to: Address,
    frame: Bytes,
    patience: Duration,
}

/// A link, as those see it who ask on it.
struct LinkEnd {
    questions: mpsc::UnboundedSender<Question>,
    let_go: Arc<Notify>,
}

enum Reply {
    Frame(Bytes),
    Nothing,
    Close(String),
}

struct Shell {
    context: Context,
    node: Arc<Mutex<dyn Node>>,
    ways: Mutex<Ways>,
    frame_bytes_max: i32,
    rearmed: Notify,
    listen: Notify,
    stop: Notify,
}

/// The ways out of a node. Whoever hands it an input holds them until all of its outputs have left; the node itself is let
/// go before, because those who hear a note may look at it.
struct Ways {
    replies: BTreeMap<ConnectionId, mpsc::UnboundedSender<Reply>>,
    links: BTreeMap<Link, LinkEnd>,
    wake_at: Timestamp,
    /// The core is done: nothing is handed to it any more.
    stopped: bool,
}

/// Runs a node until it has shut down as it was asked to, or its host is stopped.
pub(crate) async fn run(context: Context, node: Arc<Mutex<dyn Node>>, berth: Berth) {
    let shell = Arc::new(Shell {
        context: context.clone(),
        node,
        ways: Mutex::new(Ways {
            replies: BTreeMap::new(),
            links: BTreeMap::new(),
            wake_at: Timestamp::FAR_FUTURE,
            stopped: false,
        }),
        frame_bytes_max: berth.frame_bytes_max,
        rearmed: Notify::new(),
        listen: Notify::new(),
        stop: Notify::new(),
    });
    context.spawn("timer", shell.clone().keep_time());
    context.spawn("shutdown", shell.clone().shut_down(berth.shutdown));
    shell.step(Input::Start { incarnation: context.new_id() });
    tokio::select! {
        biased;
        () = shell.stop.notified() => {}
        () = shell.clone().accept(context, berth.port, Arc::new(berth.guests)) => {}
    }
}

impl Shell {
    async fn shut_down(self: Arc<Self>, asked: Arc<Notify>) {
        asked.notified().await;
        self.step(Input::Shutdown);
    }

    async fn accept(self: Arc<Self>, context: Context, port: u16, guests: Arc<Guests>) {
        let shell = self;
        shell.listen.notified().await;
        let mut listener = match context.listen(port).await {
            Ok(listener) => listener,
            Err(error) => return context.note(format_args!("cannot listen on port {port}: {error}")),
        };
        context.spawn("idle connections", guests.clone().watch(context.clone()));
        let next = AtomicU64::new(0);
        loop {
            let place = guests.place().await;
            match listener.accept().await {
                Ok((stream, peer)) => {
                    let id = ConnectionId(next.fetch_add(1, Ordering::Relaxed));
                    let guest = guests.welcome(id, place, context.now());
                    context.spawn("connection", shell.clone().serve(id, guest, peer.into(), stream));
                }
                Err(error) => {
                    // The peer went away between connect and accept, and is owed nothing; or the process is out of means.
                    context.note(format_args!("a connection was lost before it was accepted: {error}"));
                    context.sleep(ACCEPT_AGAIN).await;
                }
            }
        }
    }

    /// Hands one input to the core and does what it wants.
    fn step(self: &Arc<Self>, input: Input) {
        let mut ways = lock(&self.ways);
        if matches!(input, Input::Wake) {
            ways.wake_at = Timestamp::FAR_FUTURE;
        }
        if ways.stopped {
            return;
        }
        let mut out = Vec::new();
        lock(&self.node).handle(self.context.now(), input, &mut out);
        for output in out {
            match output {
                Output::Respond { connection, frame } => ways.reply(connection, Reply::Frame(frame)),
                Output::Done { connection } => ways.reply(connection, Reply::Nothing),
                Output::Close { connection, reason } => ways.reply(connection, Reply::Close(reason)),
                Output::Ask { link, to, frame, patience } => {
                    self.put(&mut ways, link, Question { to, frame, patience });
                }
                Output::HangUp { link } => {
                    if let Some(end) = ways.links.remove(&link) {
                        end.let_go.notify_one();
                    }
                }
                Output::Listen => self.listen.notify_one(),
                Output::WakeAt(at) => {
                    ways.wake_at = at;
                    self.rearmed.notify_one();
                }
                Output::Stopped => {
                    ways.stopped = true;
                    // Those who wait for an answer see their connections close.
                    ways.replies.clear();
                    self.stop.notify_one();
                }
                Output::Note(line) => self.context.note(format_args!("{line}")),
            }
        }
    }

    /// Hands a question to its link, which is made when it is first needed.
    fn put(self: &Arc<Self>, ways: &mut Ways, link: Link, question: Question) {
        let end = ways.links.entry(link).or_insert_with(|| {
            let (sender, questions) = mpsc::unbounded_channel();
            let let_go = Arc::new(Notify::new());
            self.context.spawn("link", self.clone().keep_link(link, questions, let_go.clone()));
            LinkEnd { questions: sender, let_go }
        });
        // While a host is being stopped its tasks end one by one; a link may be first.
        end.questions.send(question).ok();
    }

    async fn keep_time(self: Arc<Self>) {
        loop {
            let at = lock(&self.ways).wake_at;
            if at == Timestamp::FAR_FUTURE {
                self.rearmed.notified().await;
                continue;
            }
            tokio::select! {
                biased;
                () = self.rearmed.notified() => {}
                () = self.context.sleep_until(at) => self.step(Input::Wake),
            }
        }
    }

    async fn serve(
        self: Arc<Self>,
        connection: ConnectionId,
        guest: Guest,
        peer: Arc<str>,
        stream: BoxStream,
    ) {
        let (sender, replies) = mpsc::unbounded_channel();
        lock(&self.ways).replies.insert(connection, sender);
        tokio::select! {
            biased;
            () = self.converse(connection, &guest, &peer, stream, replies) => {}
            () = guest.expired() => {
                self.context.note(format_args!("closes the connection from {peer}: idle for too long"));
            }
        }
        lock(&self.ways).replies.remove(&connection);
    }

    /// Requests and answers in turn, until the peer or the core ends it. A peer that does not read its answers holds one
    /// answer here, and no more.
    async fn converse(
        self: &Arc<Self>,
        connection: ConnectionId,
        guest: &Guest,
        peer: &Arc<str>,
        mut stream: BoxStream,
        mut replies: mpsc::UnboundedReceiver<Reply>,
    ) {
        loop {
            let frame = match read_frame(&mut stream, self.frame_bytes_max).await {
                Ok(frame) => frame,
                Err(FrameError::Io(_)) => return,
                Err(error) => {
                    self.context.note(format_args!("closes the connection from {peer}: {error}"));
                    return;
                }
            };
            guest.active(self.context.now());
            self.step(Input::Request { connection, peer: peer.clone(), frame });
            let Some(reply) = replies.recv().await else { return };
            match reply {
                Reply::Frame(frame) => {
                    if write_frame(&mut stream, &frame).await.is_err() {
                        return;
                    }
                }
                Reply::Nothing => {}
                Reply::Close(reason) => {
                    self.context.note(format_args!("closes the connection from {peer}: {reason}"));
                    return;
                }
            }
            guest.active(self.context.now());
        }
    }

    async fn keep_link(
        self: Arc<Self>,
        link: Link,
        questions: mpsc::UnboundedReceiver<Question>,
        let_go: Arc<Notify>,
    ) {
        tokio::select! {
            biased;
            () = let_go.notified() => {}
            () = self.link(link, questions) => {}
        }
    }

    async fn link(self: &Arc<Self>, link: Link, mut questions: mpsc::UnboundedReceiver<Question>) {
        let mut connected: Option<(Address, BoxStream)> = None;
        while let Some(question) = questions.recv().await {
            let answer = self.ask(link, &mut connected, &question);
            let answer = self.context.timeout(question.patience, answer).await;
            let frame = answer.ok().and_then(Result::ok);
            if frame.is_none() {
                // Whatever still comes on this connection would answer the wrong request.
                connected = None;
            }
            self.step(Input::Answered { link, frame });
        }
    }

    async fn ask(
        &self,
        link: Link,
        connected: &mut Option<(Address, BoxStream)>,
        question: &Question,
    ) -> Result<Bytes, FrameError> {
        if connected.as_ref().is_some_and(|(to, _)| *to != question.to) {
            *connected = None;
        }
        let (_, stream) = match connected {
            Some(connected) => connected,
            None => connected.insert((question.to.clone(), self.connect(link, &question.to).await?)),
        };
        write_frame(stream, &question.frame).await?;
        read_frame(stream, self.frame_bytes_max).await
    }

    async fn connect(&self, link: Link, to: &Address) -> std::io::Result<BoxStream> {
        loop {
            match self.context.connect(&to.host, to.port).await {
                Err(_) if link.peer == Peer::Controller => self.context.sleep(RECONNECT).await,
                connected => return connected,
            }
        }
    }
}

impl Ways {
    fn reply(&self, connection: ConnectionId, reply: Reply) {
        // The connection may be gone: its request was handled all the same.
        if let Some(sender) = self.replies.get(&connection) {
            sender.send(reply).ok();
        }
    }
}

fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
