//! Criterion benches of Shakedown.
