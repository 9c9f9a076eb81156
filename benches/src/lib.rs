//! What the benches share: small worlds that do one thing many times, and the facts that the summary needs.
//!
//! Criterion measures; nothing here asserts a time. A world runs on one thread, so its cost is that thread's CPU time: on an
//! idle machine that is the time on the wall, and on a busy one it still says what the world did. Start reading at
//! [`exchange`], [`stream`] and [`idle`]; [`stage`] is what they stand on.

pub mod exchange;
pub mod facts;
pub mod idle;
pub mod stage;
pub mod stream;
