//! What a run leaves: plain results and how they are shown.
