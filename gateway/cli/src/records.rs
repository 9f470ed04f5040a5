//! `lamina record inspect URL`: what the second tier holds for a request, as bytes.
//!
//! It opens the store as a gateway does. A disk belongs to one process, so there the gateway must
//! be asked (`POST /v1/explain`) or stopped.

use bytes::Bytes;
use http::Request;

use crate::doctor::l2::connected;
use lamina_cache::key::KeyId;
use lamina_cache::l2::store::{StoreError, StoreKey};
use lamina_cache::record::{self, RecordLimits, Seal, StoreRecord};
use lamina_edge::app::process::ProcessState;
use lamina_edge::app::{GatewayStartError, open_store};
use lamina_edge::config::GatewayConfig;

/// Why no records can be shown.
#[derive(Debug, thiserror::Error)]
pub enum RecordsError {
    #[error(transparent)]
    Start(#[from] GatewayStartError),
    #[error("no route caches this request; `lamina explain` shows why")]
    NotCached,
    #[error("cache.l2 has no store")]
    NoStore,
    #[error("the second tier does not answer")]
    Store(#[from] StoreError),
}

/// The records for a request: that of the key itself and, if it lists fields that its responses
/// vary by, those of the variants that the request selects.
///
/// # Errors
/// See [`RecordsError`].
pub async fn of(config: &GatewayConfig, request: Request<()>) -> Result<Vec<Bytes>, RecordsError> {
    let headers = request.headers().clone();
    let process = ProcessState::new(config, None).map_err(GatewayStartError::from)?;
    let primary = process.generation(config, None).await?.key(request);
    let primary = primary.ok_or(RecordsError::NotCached)?;
    let store = open_store(config)?.ok_or(RecordsError::NoStore)?;
    let home = KeyId::of(primary.as_bytes());
    let limits = RecordLimits::of_inspection();
    let own = StoreKey::with_home(home, primary.as_bytes());
    connected(&store, &own).await?;
    let Some(found) = store.get(&own, limits.encoded).await? else {
        return Ok(Vec::new());
    };
    let mut records = vec![found.record];
    // The seal is checked where the records are shown.
    let told = record::inspect(&records[0], &limits, &Seal::public());
    if let Ok(StoreRecord::Varies(lists)) = told.map(|told| told.record) {
        for fields in lists {
            let key = primary.variant(&fields, &headers);
            let name = StoreKey::with_home(home, key.as_bytes());
            let found = store.get(&name, limits.encoded).await?;
            records.extend(found.map(|found| found.record));
        }
    }
    Ok(records)
}
