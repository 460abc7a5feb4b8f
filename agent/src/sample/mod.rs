//! [6] Sampling: a decision is data, Keep(reason) or Drop(reason).
