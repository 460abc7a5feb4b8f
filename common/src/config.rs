//! What user space sets before load: frozen globals, which the verifier treats as constants.

/// Bits of the `FEATURES` global: what the kernel side may use.
pub mod feature {
    /// Read the goroutine from the saved user registers of processes marked as Go.
    pub const GOROUTINE: u32 = 1 << 0;
}

/// Bits of a value in the `PROCS` map.
pub mod proc {
    /// Capture this process's socket transfers.
    pub const TRACE: u32 = 1 << 0;
    /// Children inherit `TRACE` (and this bit).
    pub const FOLLOW: u32 = 1 << 1;
    /// The program is Go: user R14 holds the running goroutine.
    pub const GO: u32 = 1 << 2;
}
