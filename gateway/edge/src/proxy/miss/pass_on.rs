//! A miss that is sent to the source as it is, for its client alone. Here, too, a stale copy may
//! replace a failure.

use std::time::Instant;

use super::load::ERRORS;
use super::stale::{self, StaleSituation};
use super::{Miss, RequestStep};
use crate::cache::coalesce::StaleUse;
use crate::proxy::head_update::StoredGetResponse;
use crate::proxy::pass::pass_shared;
use crate::proxy::rules::limits;

pub(super) async fn pass_on(miss: &Miss, detail: Option<&'static str>) -> RequestStep {
    let ask = &miss.ask;
    let stored = miss.shown().map(|copy| StoredGetResponse {
        copy: &copy.entry,
        primary: &miss.keyed.key,
    });
    let passed = match limits::admit_to_origin(ask).await {
        Ok(()) => pass_shared(&miss.proxy.cache, ask, stored, miss.reason, detail).await,
        Err(refusal) => Err(refusal),
    };
    RequestStep::Answered(match passed {
        Ok(served) if ERRORS.contains(&served.response.status().as_u16()) => {
            let failed = StaleSituation::Failed(StaleUse::InWindow);
            let shown = miss.shown().and_then(|copy| {
                let reason = copy.verdict(failed, ask, Instant::now()).reason()?;
                Some(stale::serve(&miss.proxy.cache, ask, &copy.entry, reason))
            });
            shown.unwrap_or(served)
        }
        Ok(served) => served,
        Err(failure) => stale::or_error(miss, miss.stale.as_ref(), &failure),
    })
}
