//! Imports that YAML grants by name (`grant: [kv, clock, random]`). A plugin that uses one
//! without the grant is refused when it is loaded. Not for `key`, which is pure.
//!
//! Each function calls `link`: without it a linker may leave out the section that says
//! what these imports are.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::bindings::granted::__link_custom_section_describing_imports as link;
use crate::bindings::granted::lamina::plugin::{clock, kv, random};

/// What the plugin's store holds.
pub fn kv_get(key: &str) -> Option<Vec<u8>> {
    link();
    kv::get(key)
}

/// Puts a value into the plugin's store, for a while or as long as there is room. False:
/// the key is empty or over 256 bytes, or the value over a sixteenth of the store.
pub fn kv_set(key: &str, value: &[u8], ttl: Option<Duration>) -> bool {
    link();
    let ttl = ttl.map(|ttl| u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX));
    kv::set(key, value, ttl).is_ok()
}

/// Takes a value out.
pub fn kv_delete(key: &str) {
    link();
    kv::delete(key);
}

/// The time.
pub fn now() -> SystemTime {
    link();
    UNIX_EPOCH + Duration::from_millis(clock::now_ms())
}

/// Nanoseconds of a clock that never goes back; its zero means nothing.
pub fn monotonic_ns() -> u64 {
    link();
    clock::monotonic_ns()
}

/// Random bytes fit for secrets, up to 64 KiB.
pub fn random(length: u32) -> Vec<u8> {
    link();
    random::bytes(length)
}
