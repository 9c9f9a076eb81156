//! The tasks of all hosts, and whose turn it is.
//!
//! A task belongs to a host. A wake marks it ready on that host; the engine then draws from the seed which of the hosts
//! with ready tasks goes next, and polls that host's ready tasks in the order of their wakes. A paused host keeps its
//! ready tasks until it goes on.
//!
//! No future is polled or dropped while the lock is held: a drop may wake, spawn, or close a socket.

use std::any::Any;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use context::{BoxFuture, Rng, TaskHandle};

use super::draw_below;

/// What a task that panics throws.
type Panic = Box<dyn Any + Send>;

/// The tasks of one world.
#[derive(Default)]
pub(crate) struct Tasks {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    slots: Vec<Option<Slot>>,
    free: Vec<usize>,
    next_id: u64,
    hosts: Vec<HostTasks>,
    /// The hosts that are not paused and have ready tasks, each once.
    runnable: Vec<usize>,
    /// Wakes the engine while it waits for time to pass.
    engine: Option<Waker>,
}

struct Slot {
    signal: Arc<Signal>,
    waker: Waker,
    name: &'static str,
    /// Away while it is polled.
    future: Option<BoxFuture<'static, ()>>,
}

#[derive(Default)]
struct HostTasks {
    ready: VecDeque<Ready>,
    paused: bool,
    /// It is in `runnable`, or at its turn.
    listed: bool,
    wakes_deferred: u64,
}

/// A task in a queue. It may have ended since; slots are used again, ids are not.
#[derive(Clone, Copy)]
struct Ready {
    slot: usize,
    id: u64,
}

/// A task as its wakers and its handle know it. It does not own the future: the last waker may go while the network
/// stack is borrowed, where no socket may be closed.
struct Signal {
    tasks: Arc<Tasks>,
    host: usize,
    ready: Ready,
    queued: AtomicBool,
    aborted: AtomicBool,
}

impl Tasks {
    /// Makes room for hosts `0..count`.
    pub(crate) fn set_hosts(&self, count: usize) {
        self.state().hosts.resize_with(count, HostTasks::default);
    }

    /// Starts a task of `host`; its first turn comes in its order.
    pub(crate) fn spawn(
        self: &Arc<Self>,
        host: usize,
        name: &'static str,
        future: BoxFuture<'static, ()>,
    ) -> TaskHandle {
        let mut state = self.state();
        let id = state.next_id;
        state.next_id += 1;
        let slot = state.free.pop().unwrap_or(state.slots.len());
        if slot == state.slots.len() {
            state.slots.push(None);
        }
        let ready = Ready { slot, id };
        let signal = Arc::new(Signal {
            tasks: self.clone(),
            host,
            ready,
            queued: AtomicBool::new(true),
            aborted: AtomicBool::new(false),
        });
        let waker = Waker::from(signal.clone());
        state.slots[slot] = Some(Slot { signal: signal.clone(), waker, name, future: Some(future) });
        let engine = state.make_ready(host, ready);
        drop(state);
        if let Some(engine) = engine {
            engine.wake();
        }
        TaskHandle::new(move || signal.abort())
    }

    /// Draws the host whose turn it is, among those with something to do.
    pub(crate) fn draw(&self, ties: &mut Rng) -> Option<usize> {
        let mut state = self.state();
        let place = match state.runnable.len() {
            0 => return None,
            1 => 0,
            several => draw_below(ties, several as u64) as usize,
        };
        Some(state.runnable.swap_remove(place))
    }

    /// Polls the tasks of `host` that are ready now, and says how many it polled. Tasks that become ready meanwhile
    /// wait for the host's next turn.
    ///
    /// `blame` adds to a panic that passes through what the task's name cannot say.
    pub(crate) fn run(&self, host: usize, blame: impl Fn(Panic, &str) -> Panic) -> u64 {
        let count = self.state().hosts[host].ready.len();
        let mut polled = 0;
        for _ in 0..count {
            let Some(ready) = self.state().hosts[host].ready.pop_front() else { break };
            polled += u64::from(self.turn(ready, &blame));
        }
        self.state().list(host);
        polled
    }

    /// One poll of one task; false if it has ended already.
    fn turn(&self, ready: Ready, blame: &impl Fn(Panic, &str) -> Panic) -> bool {
        let mut state = self.state();
        let Some(slot) = state.slot(ready) else { return false };
        slot.signal.queued.store(false, Ordering::Relaxed);
        let future = slot.future.take();
        let (waker, name) = (slot.waker.clone(), slot.name);
        let aborted = slot.signal.aborted.load(Ordering::Relaxed);
        drop(state);

        let mut future = future.expect("a task is polled by one turn at a time");
        if !aborted {
            let poll = || future.as_mut().poll(&mut Context::from_waker(&waker));
            match catch_unwind(AssertUnwindSafe(poll)) {
                Ok(Poll::Ready(())) => {}
                Ok(Poll::Pending) => {
                    let mut state = self.state();
                    let slot = state.slot(ready).expect("a task that is polled stays in its slot");
                    slot.future = Some(future);
                    return true;
                }
                Err(panic) => resume_unwind(blame(panic, name)),
            }
        }
        drop(future);
        let slot = self.state().vacate(ready.slot);
        drop(slot);
        true
    }

    /// Takes all tasks of `host` away, in the order of their slots, and what was ready with them. The caller drops them.
    #[must_use = "tasks die where they are dropped"]
    pub(crate) fn take(&self, host: usize) -> Vec<BoxFuture<'static, ()>> {
        let mut state = self.state();
        let of_host = |slot: &Option<Slot>| slot.as_ref().is_some_and(|slot| slot.signal.host == host);
        let slots: Vec<usize> = (0..state.slots.len()).filter(|&slot| of_host(&state.slots[slot])).collect();
        let taken: Vec<Option<Slot>> = slots.into_iter().map(|slot| state.vacate(slot)).collect();
        state.hosts[host].ready.clear();
        state.hosts[host].paused = false;
        state.list(host);
        drop(state);
        taken.into_iter().flatten().filter_map(|slot| slot.future).collect()
    }

    /// Stops or resumes the turns of `host`.
    pub(crate) fn set_paused(&self, host: usize, paused: bool) {
        let mut state = self.state();
        state.hosts[host].paused = paused;
        state.list(host);
    }

    /// The wakes that came while `host` was paused, from the start of the run.
    pub(crate) fn wakes_deferred(&self, host: usize) -> u64 {
        self.state().hosts[host].wakes_deferred
    }

    /// Whether a host has something to do now.
    pub(crate) fn any_ready(&self) -> bool {
        !self.state().runnable.is_empty()
    }

    /// Wakes the engine with the next task that becomes ready.
    pub(crate) fn wake_when_ready(&self, engine: &Waker) {
        self.state().engine = Some(engine.clone());
    }

    /// No wake needs to reach the engine: it is at work.
    pub(crate) fn engine_at_work(&self) {
        self.state().engine = None;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn slot(&mut self, ready: Ready) -> Option<&mut Slot> {
        self.slots[ready.slot].as_mut().filter(|slot| slot.signal.ready.id == ready.id)
    }

    fn vacate(&mut self, slot: usize) -> Option<Slot> {
        self.free.push(slot);
        self.slots[slot].take()
    }

    /// Queues a task; gives the engine's waker if the engine must hear of it.
    fn make_ready(&mut self, host: usize, ready: Ready) -> Option<Waker> {
        let tasks = &mut self.hosts[host];
        tasks.ready.push_back(ready);
        if tasks.paused {
            tasks.wakes_deferred += 1;
            return None;
        }
        if !tasks.listed {
            tasks.listed = true;
            self.runnable.push(host);
        }
        self.engine.take()
    }

    /// Puts `host` among the runnable if it is one of them, and takes it away if not.
    fn list(&mut self, host: usize) {
        let tasks = &mut self.hosts[host];
        tasks.listed = !tasks.paused && !tasks.ready.is_empty();
        self.runnable.retain(|&runnable| runnable != host);
        if tasks.listed {
            self.runnable.push(host);
        }
    }
}

impl Signal {
    fn abort(self: &Arc<Self>) {
        self.aborted.store(true, Ordering::Relaxed);
        self.wake_by_ref();
    }
}

impl Wake for Signal {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.queued.swap(true, Ordering::Relaxed) {
            return;
        }
        let mut state = self.tasks.state();
        // A waker may outlive its task.
        if state.slot(self.ready).is_none() {
            return;
        }
        let engine = state.make_ready(self.host, self.ready);
        drop(state);
        if let Some(engine) = engine {
            engine.wake();
        }
    }
}
