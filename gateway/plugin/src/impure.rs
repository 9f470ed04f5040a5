//! The imports `clock` and `random`.

use std::sync::LazyLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use super::bindings::{clock, random};
use super::contract::{CLOCK, RANDOM};
use super::guest::GuestState;

/// The most random bytes that one call returns.
const MAX_BYTES: u32 = 64 << 10;

static BEGAN: LazyLock<Instant> = LazyLock::new(Instant::now);

impl clock::Host for GuestState {
    fn now_ms(&mut self) -> wasmtime::Result<u64> {
        self.may_be_impure(CLOCK)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        Ok(now.map_or(0, |now| now.as_millis() as u64))
    }

    fn monotonic_ns(&mut self) -> wasmtime::Result<u64> {
        self.may_be_impure(CLOCK)?;
        Ok(BEGAN.elapsed().as_nanos() as u64)
    }
}

impl random::Host for GuestState {
    fn bytes(&mut self, length: u32) -> wasmtime::Result<Vec<u8>> {
        self.may_be_impure(RANDOM)?;
        if length > MAX_BYTES {
            let asked = format!("{length} random bytes were asked for; {MAX_BYTES} are allowed");
            return Err(wasmtime::Error::msg(asked));
        }
        let mut bytes = vec![0; length as usize];
        getrandom::fill(&mut bytes).map_err(|e| wasmtime::Error::msg(e.to_string()))?;
        Ok(bytes)
    }
}
