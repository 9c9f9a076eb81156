//! What the kit promises, each claim in a simulated world: hosts that crash and pause, a store that outlives them, and a
//! broker ([`fake`]) that does exactly what a claim needs. Claims that need a real protocol are in `cluster`.

extern crate shakedown_kit as kit;

mod bed;
mod fake;
mod layers;
mod relaying;
mod routing;
mod sagas;
