//! Notes of what requests made invalid: one key for each URL or group of which something is stored,
//! with the newest place in the order whose responses must not be shown any more.
//!
//! A note begins when somebody looks for a record, and lives as long as the longest-lived record
//! that was written under it. Whoever reads a record also reads its notes. So a record that is
//! written late, by any node, is hidden by them.
//!
//! A record whose note is gone (evicted, or removed) is not shown: it is unknown what was noted,
//! and the load that follows replaces the record. Orders can be compared within one generation of
//! the purge log only, so a note contains its generation. With a secret it is sealed for its
//! number, and a note that is not ours counts as one that is gone.

use std::cmp::Ordering;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::try_join_all;
use lamina_base::redis::driver::Value;

use super::fault::unexpected;
use super::seals::SEAL;
use super::values::{done, millis, stamp};
use super::{RedisStore, script};
use crate::key::PurgeHash;
use crate::l2::store::LogOrder;
use crate::l2::store::{
    FoundRecord, LogPlace, StoreError, StoreKey, StorePut, StorePutOutcome, StoreRefusal,
};

/// The number of octets of a stamp, and of the generation with which it begins.
const STAMP: usize = 36;
const GENERATION: usize = 16;

/// How long a note lives under which nothing was written: longer than loads take.
const LOADING: Duration = Duration::from_secs(120);

impl RedisStore {
    pub(super) async fn read_noted(
        &self,
        key: &StoreKey,
        max: usize,
        number: PurgeHash,
    ) -> Result<(Option<FoundRecord>, LogOrder), StoreError> {
        tokio::try_join!(self.read(key, max), self.note(number))
    }

    pub(super) async fn write_noted(
        &self,
        put: StorePut<'_>,
        numbers: &[PurgeHash],
    ) -> Result<StorePutOutcome, StoreError> {
        // This comes first: for everything that can be found, an invalidation must find a note.
        let life = put.life.max(LOADING);
        try_join_all(numbers.iter().map(|number| self.keep_note(*number, life))).await?;
        self.write(put).await
    }

    /// The newest invalidation of any of these numbers.
    pub(super) async fn notes(&self, numbers: &[PurgeHash]) -> Result<LogOrder, StoreError> {
        let notes = try_join_all(numbers.iter().map(|number| self.note(*number))).await?;
        Ok(notes.into_iter().max().unwrap_or_default())
    }

    /// False: there is no note of this number.
    pub(super) async fn change_note(
        &self,
        number: PurgeHash,
        at: LogPlace,
    ) -> Result<bool, StoreError> {
        if self.has_ended(at) {
            let why = "a new purge log was begun".to_owned();
            return Err(StoreError::Refused(StoreRefusal::Other, why));
        }
        let arguments = vec![self.note_of(number, at), millis(LOADING).into()];
        let keys = vec![self.names.note(number)];
        let answer = self.carry(&script::INVALIDATE, keys, arguments).await?;
        done(&answer, "SET")
    }

    /// The noted place, or the end of all orders if nobody can tell.
    async fn note(&self, number: PurgeHash) -> Result<LogOrder, StoreError> {
        let keys = vec![self.names.note(number)];
        let arguments = vec![self.note_of_nothing(number), millis(LOADING).into()];
        let answer = self.run(&script::READ_NOTE, keys, arguments).await?;
        let Value::Array(parts) = answer else {
            return Err(unexpected("GET"));
        };
        let [begun, held] = <[Value; 2]>::try_from(parts).map_err(|_| unexpected("GET"))?;
        let held = held.into_bytes().ok_or_else(|| unexpected("GET"))?;
        match (begun.as_i64(), self.noted(number, &held)) {
            (Some(1), _) => Ok(LogOrder::AFTER_ALL),
            (_, Some(at)) => Ok(at),
            (_, None) => {
                self.replace_note(number, held).await?;
                Ok(LogOrder::AFTER_ALL)
            }
        }
    }

    /// Replaces a note that is not ours. The new one hides what was born before the newest number.
    async fn replace_note(&self, number: PurgeHash, held: Bytes) -> Result<(), StoreError> {
        let keys = vec![self.names.note(number)];
        let arguments = vec![
            Value::Bytes(held),
            self.note_of(number, self.generation.log_place()),
            millis(LOADING).into(),
        ];
        let answer = self.run(&script::REPLACE_NOTE, keys, arguments).await?;
        done(&answer, "SET").map(drop)
    }

    /// A note as it is stored: a stamp and, with a secret, its seal.
    fn note_of(&self, number: PurgeHash, at: LogPlace) -> Value {
        let mut note = stamp(at).into_bytes();
        if let Some(seals) = &self.seals {
            note.extend(seals.of_note(number, &note));
        }
        note.as_slice().into()
    }

    /// A note that hides nothing that was loaded in the present generation.
    fn note_of_nothing(&self, number: PurgeHash) -> Value {
        let generation = self.generation.generation();
        self.note_of(
            number,
            LogPlace {
                generation,
                order: LogOrder::BEFORE_ALL,
            },
        )
    }

    /// The noted place in the order of the present purge log. None: the note is not ours.
    fn noted(&self, number: PurgeHash, held: &[u8]) -> Option<LogOrder> {
        let (stamp, seal) = held.split_at_checked(STAMP)?;
        let is_ours = match &self.seals {
            Some(seals) => seals.holds_for_note(number, stamp, seal),
            None => seal.is_empty() || seal.len() == SEAL,
        };
        let text = std::str::from_utf8(stamp).ok().filter(|_| is_ours)?;
        let (generation, at) = text.split_at_checked(GENERATION)?;
        let generation = u64::from_str_radix(generation, 16).ok()?;
        let at = LogOrder::new(at.parse().ok()?);
        Some(match generation.cmp(&self.generation.generation()) {
            Ordering::Equal => at,
            // Everything that can be shown was loaded after that generation.
            Ordering::Less => LogOrder::BEFORE_ALL,
            Ordering::Greater => LogOrder::AFTER_ALL,
        })
    }

    async fn keep_note(&self, number: PurgeHash, life: Duration) -> Result<(), StoreError> {
        let keys = vec![self.names.note(number)];
        let arguments = vec![self.note_of_nothing(number), millis(life).into()];
        let answer = self.run(&script::KEEP_NOTE, keys, arguments).await?;
        done(&answer, "SET").map(drop)
    }
}
