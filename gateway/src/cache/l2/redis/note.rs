//! Notes of what requests made invalid: one key for each URL or group that something is
//! stored of, with the newest place in the order that is not to be shown any more.
//!
//! A note is begun when somebody looks for a record, and lives as long as the longest-lived
//! record that was written under it. Whoever reads a record reads its notes as well: a
//! record that is written late, by whichever node, is hidden by them.

use std::time::Duration;

use futures_util::future::try_join_all;

use super::fault::unexpected;
use super::{Redis, done, millis, order, script};
use crate::cache::key::Hash64;
use crate::cache::l2::store::{Found, Put, StoreError, StoreKey, Written};
use crate::cache::purge::Order;

/// How long a note lives that nothing was written under: longer than loads take.
const LOADING: Duration = Duration::from_secs(120);

impl Redis {
    pub(super) async fn read_noted(
        &self,
        key: &StoreKey,
        max: usize,
        number: Hash64,
    ) -> Result<(Option<Found>, Order), StoreError> {
        tokio::try_join!(self.read(key, max), self.note(number))
    }

    pub(super) async fn write_noted(
        &self,
        put: Put<'_>,
        numbers: &[Hash64],
    ) -> Result<Written, StoreError> {
        // First: an invalidation must find a note of what can be found.
        let life = put.life.max(LOADING);
        try_join_all(numbers.iter().map(|number| self.keep_note(*number, life))).await?;
        self.write(put).await
    }

    /// The newest invalidation of any of these numbers.
    pub(super) async fn notes(&self, numbers: &[Hash64]) -> Result<Order, StoreError> {
        let notes = try_join_all(numbers.iter().map(|number| self.note(*number))).await?;
        Ok(notes.into_iter().max().unwrap_or(0))
    }

    /// False: there is no note of this number.
    pub(super) async fn change_note(&self, number: Hash64, at: Order) -> Result<bool, StoreError> {
        let arguments = vec![order(at), millis(LOADING).into()];
        let keys = vec![self.names.note(number)];
        let answer = self.run(&script::INVALIDATE, keys, arguments).await?;
        done(&answer, "SET")
    }

    async fn note(&self, number: Hash64) -> Result<Order, StoreError> {
        let keys = vec![self.names.note(number)];
        let arguments = vec![millis(LOADING).into()];
        let answer = self.run(&script::READ_NOTE, keys, arguments).await?;
        let text = answer.as_str().ok_or_else(|| unexpected("GET"))?;
        text.parse().map_err(|_| unexpected("GET"))
    }

    async fn keep_note(&self, number: Hash64, life: Duration) -> Result<(), StoreError> {
        let keys = vec![self.names.note(number)];
        let arguments = vec![millis(life).into()];
        let answer = self.run(&script::KEEP_NOTE, keys, arguments).await?;
        done(&answer, "SET").map(drop)
    }
}
