//! Arguments of commands and parts of answers, between Redis and the types of a store.

use std::time::Duration;

use lamina_base::redis::driver::Value;

use super::fault::unexpected;
use crate::l2::store::{FoundRecord, LogOrder, LogPlace, StoreError};

/// A place of the purge log as a text. Within one generation, the texts compare like the places.
pub(super) fn stamp(place: LogPlace) -> String {
    format!("{:016x}{:020}", place.generation, place.order)
}

/// Reads `[bytes]` or `[bytes, ms left, record]`.
pub(super) fn found(parts: Vec<Value>, limit: usize) -> Result<Option<FoundRecord>, StoreError> {
    let mut parts = parts.into_iter();
    let bytes = parts.next().and_then(|n| n.as_u64());
    let bytes = bytes.ok_or_else(|| unexpected("STRLEN"))?;
    let (Some(left), Some(record)) = (parts.next(), parts.next()) else {
        let size = usize::try_from(bytes).unwrap_or(usize::MAX);
        return Err(StoreError::TooLarge { size, limit });
    };
    let left = left.as_i64().ok_or_else(|| unexpected("PTTL"))?;
    if left == -1 {
        return Err(StoreError::Foreign(
            "a value without an expiry time".to_owned(),
        ));
    }
    let record = record.into_bytes().ok_or_else(|| unexpected("GET"))?;
    let left = u64::try_from(left).ok().filter(|left| *left > 0);
    Ok(left.map(|ms| FoundRecord {
        record,
        left: Duration::from_millis(ms),
    }))
}

/// The order as a text that compares like the number.
pub(super) fn order(order: LogOrder) -> Value {
    format!("{order:020}").into()
}

/// Whole milliseconds, at least one and at most some 136 years, so that Redis accepts them.
pub(super) fn millis(span: Duration) -> i64 {
    const MOST: i64 = u32::MAX as i64 * 1_000;
    i64::try_from(span.as_millis()).map_or(MOST, |ms| ms.clamp(1, MOST))
}

pub(super) fn size(bytes: usize) -> Value {
    bytes.to_string().into()
}

/// Reads an answer that must be 1 or 0.
pub(super) fn done(answer: &Value, command: &str) -> Result<bool, StoreError> {
    match answer.as_i64() {
        Some(1) => Ok(true),
        Some(0) => Ok(false),
        _ => Err(unexpected(command)),
    }
}
